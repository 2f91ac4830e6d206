"""Inspects a prepared dataset: counts and ranges, a check of every record, pictures.

    psrjax data stats DIR [--json]
    psrjax data check DIR     (of a dataset, or of a run)
    psrjax data show DIR [--to FOLDER]

`stats` prints counts and ranges. `check` reads every record, checks every key against the contract
and exits with 2 if anything is wrong; of a run's directory it reads every checkpoint and compares
every array with its checksum. `show` writes contact_sheet.png and preview.mp4.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.data import inspection
from psrjax.errors import UserError
from psrjax.training import checkpoint

_TO = flags.DEFINE_string("to", "", "show: the folder of the pictures; by default DIR/show")
_JSON = flags.DEFINE_bool("json", False, "stats: print JSON")


def main(arguments: Sequence[str]) -> None:
    """Runs stats, check or show on a dataset."""
    commands = {"stats": _stats, "check": _check, "show": _show}
    if len(arguments) != 2 or arguments[0] not in commands:
        raise UserError(f"psrjax data {'|'.join(commands)} DIR")
    commands[arguments[0]](Path(arguments[1]))


def _stats(directory: Path) -> None:
    found = inspection.stats(directory)
    if _JSON.value:
        print(json.dumps(found, indent=2))
        return
    print(f"{directory}: {found['bytes'] / 1e6:.1f} MB")
    for split, counts in found["splits"].items():
        print(f"split {split}: " + ", ".join(f"{name} {value}" for name, value in counts.items()))
    for stream, meaning in found["streams"].items():
        values = found["ranges"].get(stream)
        range_text = (
            f"{values['low']:g} to {values['high']:g}, mean {values['mean']:g}" if values else ""
        )
        print(f"{stream:16} {range_text:40} {meaning}")
    missing = found["joints"].get("missing", {})
    if missing:
        listed = (f"{joint} {share:.0%}" for joint, share in missing.items())
        print(f"missing joints: {', '.join(listed)}")


def _check(directory: Path) -> None:
    is_run = (directory / checkpoint.CONFIG).is_file()
    wrong = checkpoint.check(directory) if is_run else inspection.check(directory)
    for line in wrong:
        print(line)
    if wrong:
        raise UserError(f"{directory}: {len(wrong)} things are wrong; first: {wrong[0]}")
    print(f"{directory}: nothing wrong")


def _show(directory: Path) -> None:
    for path in inspection.show(directory, _TO.value or directory / "show"):
        print(path)
