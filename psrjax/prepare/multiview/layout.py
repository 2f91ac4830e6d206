"""The folder of a multi-view recording: which video, joints and camera belong together."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from psrjax.errors import UserError
from psrjax.prepare.common.calibration import calibration_files, read_calibration, same_name
from psrjax.vision.camera import Camera

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
LAYOUT = "videos/NAME.mp4, pose/NAME_json/*.json and calibration/ (OpenCV-style .json or .qca.txt)"


@dataclass(frozen=True)
class CameraFiles:
    """The files of one camera, and the camera in pixels of the picture that was calibrated.

    `camera.size` is (0, 0) where the calibration does not give the picture's size.
    """

    name: str
    video: Path
    joints: Path
    camera: Camera


@dataclass(frozen=True)
class Recording:
    """A recording's folder, its calibration file and its cameras in the order asked for."""

    root: Path
    calibration: Path
    cameras: tuple[CameraFiles, ...]
    notes: list[str] = field(default_factory=list)


def find(
    root: Path | str, *, cameras: tuple[str, ...] = (), calibration: Path | str | None = None
) -> Recording:
    """Finds a recording's files.

    Args:
      root: the folder, laid out as `LAYOUT`.
      cameras: the cameras to use; all by default.
      calibration: the calibration file; by default the first in `root/calibration`, OpenCV-style
        JSON before Qualisys text. Sizes that it lacks are taken from the others.

    Raises:
      UserError: if a part of the layout is missing, or a camera has no video, joints or
        calibration.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; a recording is laid out as {LAYOUT}")
    videos = {p.stem: p for p in sorted((root / "videos").glob("*")) if p.suffix.lower() in VIDEOS}
    if not videos:
        raise UserError(f"{root / 'videos'}: holds no video; a recording is laid out as {LAYOUT}")
    names = list(cameras) or list(videos)
    unknown = [name for name in names if name not in videos]
    if unknown:
        raise UserError(
            f"{root / 'videos'}: no video of camera {unknown[0]!r}, only of {', '.join(videos)}"
        )
    if len(names) < 2:
        raise UserError(f"{root}: camera {names[0]!r} alone; joints in space need two or more")
    files = calibration_files(root / "calibration")
    chosen = Path(calibration) if calibration else next(iter(files), None)
    if chosen is None:
        raise UserError(f"{root / 'calibration'}: holds no calibration (.json or .qca.txt)")
    known = read_calibration(chosen)
    others = [read_calibration(path) for path in files if path != chosen]
    found = [
        CameraFiles(name, videos[name], _joints(root, name), _camera(name, chosen, known, others))
        for name in names
    ]
    return Recording(root, chosen, tuple(found))


def _joints(root: Path, name: str) -> Path:
    folders = [root / "pose" / f"{name}_json", root / "pose" / name]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise UserError(
        f"{folders[0]}: no such folder: camera {name!r} has no joints; put its OpenPose JSON "
        "there, or leave the camera out (--cameras)"
    )


def _camera(
    name: str, path: Path, known: dict[str, Camera], others: list[dict[str, Camera]]
) -> Camera:
    camera = _named(name, known)
    if camera is None:
        raise UserError(
            f"{path}: no calibration of camera {name!r}, only of {', '.join(known)}: add it, or "
            "leave the camera out (--cameras)"
        )
    sizes = [c.size for c in (_named(name, other) for other in others) if c and c.size[0]]
    return replace(camera, size=sizes[0]) if not camera.size[0] and sizes else camera


def _named(name: str, cameras: dict[str, Camera]) -> Camera | None:
    found = [camera for other, camera in cameras.items() if same_name(name, other)]
    return found[0] if len(found) == 1 else None
