"""The notebooks, one a system, run from top to bottom, train, score and show a video."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from psrjax.prepare.common import detector

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
METHODS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
OWN_VIDEO = ROOT.parent / "shared/media/juggle/juggle.mp4"


def test_every_system_has_its_notebook_without_outputs():
    assert [path.stem for path in NOTEBOOKS] == METHODS
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        assert not any(cell.get("outputs") for cell in notebook.cells), path
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        compile(code, path, "exec")
        for line in ("psrjax.prepare(VIDEO", "psrjax.train(PRESET", "psrjax.load(RUN)", ".save("):
            assert line in code, (path, line)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_trains_scores_and_shows_a_video(path, tmp_path, monkeypatch):
    executed = execute(path, tmp_path, monkeypatch, STEPS=2)
    assert "clips  frames" in executed.text and executed.videos == 2
    assert len(list(tmp_path.glob("*.mp4"))) == 1


@pytest.mark.slow
def test_a_notebook_takes_a_video_of_ones_own(tmp_path, monkeypatch):
    if not OWN_VIDEO.is_file() or not detector.installed():
        pytest.skip("needs ../shared/media/juggle and MediaPipe, which psrjax prepare installs")
    path = ROOT / "docs/notebooks/hpt.ipynb"
    executed = execute(path, tmp_path, monkeypatch, STEPS=2, VIDEO=str(OWN_VIDEO))
    assert executed.videos == 2 and (tmp_path / "data/own/prepare.html").is_file()
    assert (tmp_path / "dancing.mp4").is_file()


class Executed:
    """The texts of a notebook that has run, and how many videos it shows."""

    def __init__(self, notebook):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        self.text = "".join(output.get("text", "") for output in outputs)
        pages = [output.get("data", {}).get("text/html", "") for output in outputs]
        self.videos = sum("data:video/mp4;base64," in page for page in pages)


def execute(path, folder, monkeypatch, **parameters):
    """Runs a notebook in a folder, with other values of its parameters."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as most people have
    notebook = nbformat.read(path, as_version=4)
    place = next(
        i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", ())
    )
    given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    notebook.metadata.kernelspec.name = _kernel(folder, monkeypatch)
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}})
    client.execute()
    return Executed(notebook)


def _kernel(folder: Path, monkeypatch) -> str:
    """A kernel of this very Python, whatever kernels the machine has."""
    from jupyter_client.kernelspec import KernelSpecManager

    spec = folder / "jupyter/kernels/psrjax-test"
    spec.mkdir(parents=True)
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    content = {"argv": command, "display_name": "test", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    assert "psrjax-test" in KernelSpecManager().find_kernel_specs()
    return "psrjax-test"
