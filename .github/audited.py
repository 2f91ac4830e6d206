"""Prints requirements for pip-audit: `lowest`, those of pyproject.toml, or those of `mediapipe`.

python .github/audited.py lowest >lowest.txt
pip-audit -s osv --no-deps --disable-pip -r lowest.txt
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lowest() -> list[str]:
    """Pins every requirement that has a lower bound to it; the extras too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    found = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?(?:>=|==)([\d.]*\d)", each) for each in asked)
    return sorted({f"{each[1]}=={each[2]}" for each in found if each})


def mediapipe() -> list[str]:
    """Lists the packages of MediaPipe's own environment, without running the file."""
    file = ROOT / "psrjax/prepare/common/detector.py"
    values = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            values[node.targets[0].id] = node.value
    version = ast.literal_eval(values["VERSION"])
    parts = (
        part.value if isinstance(part, ast.Constant) else f"mediapipe=={version}"
        for part in values["_PACKAGES"].elts
    )
    return list(parts)


if __name__ == "__main__":
    print("\n".join({"lowest": lowest, "mediapipe": mediapipe}[sys.argv[1]]()))
