"""Files of NTU RGB+D (Shahroudy et al., CVPR 2016): names, splits and lists."""

import json
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from psrjax.io import foreign

NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
CAMERAS = (1, 2, 3)
# Training people of the cross-subject protocol; all others are for testing.
TRAIN_PEOPLE = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
ACTIONS = range(1, 50)  # GTNet's list, of one person each; A050 to A060 show two
GTNET_LIST = "ntu_nvs.json"
_MISSING_LISTS = "*samples_with_missing_skeletons*.txt"


@dataclass(frozen=True)
class NtuName:
    """The parts of a name `SsssCcccPpppRrrrAaaa`."""

    setup: int
    camera: int
    person: int
    repetition: int
    action: int

    @property
    def stem(self) -> str:
        """The whole name."""
        return f"S{self.setup:03d}C{self.camera:03d}{self._rest}"

    @property
    def clip(self) -> str:
        """The name without the camera: what the three cameras recorded at the same time."""
        return f"S{self.setup:03d}{self._rest}"

    @property
    def split(self) -> str:
        """The split by the cross-subject protocol, "train" or "test"."""
        return "train" if self.person in TRAIN_PEOPLE else "test"

    @property
    def _rest(self) -> str:
        return f"P{self.person:03d}R{self.repetition:03d}A{self.action:03d}"


def parse_name(name: str) -> NtuName:
    """Parses the beginning of a file's or folder's name.

    Raises:
      ValueError: if it is no such name.
    """
    match = NAME.match(name)
    if match is None:
        raise ValueError(f"{name!r} does not begin as S001C001P001R001A001")
    return NtuName(*(int(number) for number in match.groups()))


def missing(root: Path) -> frozenset[str]:
    """Reads the stems in the lists of missing skeletons in a folder."""
    stems = set()
    for path in sorted(root.glob(_MISSING_LISTS)):
        lines = path.read_text(errors="replace").splitlines()
        stems |= {line.strip() for line in lines if NAME.fullmatch(line.strip())}
    return frozenset(stems)


def gtnet_list(root: Path) -> dict[str, str] | None:
    """Reads {stem: split} from GTNet's `ntu_nvs.json`; None if the folder does not hold it.

    Raises:
      UserError: if the file is damaged.
    """
    path = root / GTNET_LIST
    if not path.is_file():
        return None
    with foreign.parsing(path, "not GTNet's list; get it again or remove it"):
        content = json.loads(path.read_text())
        return {
            parse_name(os.path.basename(name)).stem: split
            for split, cameras in content.items()
            for videos in cameras.values()
            for name in videos
        }


def index(root: Path) -> dict[str, dict[str, Path]]:
    """Returns {stem: {"video" | "skeleton" | "depth": path}} of everything below a folder.

    Folders named like a stem hold its depth pictures and are not searched. Empty files do not
    count.
    """
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        for name in sorted(folders):
            if NAME.fullmatch(name):
                folders.remove(name)
                if "masked" in here.name:
                    found[name]["depth"] = here / name
        for name in names:
            if not NAME.match(name):
                continue
            parsed = parse_name(name)
            role = {"_rgb.avi": "video", ".skeleton": "skeleton"}.get(name[len(parsed.stem) :])
            if role and (here / name).stat().st_size:
                found[parsed.stem][role] = here / name
    return dict(found)


def triplets(root: Path) -> tuple[dict[str, dict[int, dict[str, Path]]], tuple[str, ...]]:
    """Returns {clip: {camera: files}} of clips with all three cameras, and notes on the others.

    A folder with GTNet's list gives the clips listed there; any other the actions A001 to A049.
    """
    listed, lost, files = gtnet_list(root), missing(root), index(root)
    clips: dict[str, dict[int, dict[str, Path]]] = defaultdict(dict)
    out: Counter[str] = Counter()
    for stem in sorted(files):
        name = parse_name(stem)
        if "video" not in files[stem]:
            continue
        if listed is not None and stem not in listed:
            out[f"not in {GTNET_LIST}"] += 1
        elif listed is None and name.action not in ACTIONS:
            out["of two people (A050 and above)"] += 1
        elif stem in lost:
            out["in the list of missing skeletons"] += 1
        elif "skeleton" not in files[stem]:
            out["without a skeleton file"] += 1
        else:
            clips[name.clip][name.camera] = files[stem]
    whole = {clip: views for clip, views in clips.items() if set(views) == set(CAMERAS)}
    notes = [f"{count} videos {why}" for why, count in out.items()]
    if len(whole) < len(clips):
        notes.append(f"{len(clips) - len(whole)} clips lack one of the three cameras")
    return whole, tuple(notes)
