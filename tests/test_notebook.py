"""launch/colab.ipynb runs from top to bottom and shows a picture."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "launch/colab.ipynb"


@pytest.mark.slow
def test_the_notebook_trains_scores_and_shows_a_picture(tmp_path, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # one device, as most people have
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    notebook.metadata.kernelspec.name = _kernel(tmp_path, monkeypatch)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "layer3" in texts and "x0_background" in texts
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert (tmp_path / "runs/notebook-tiny/layer3/metrics.jsonl").exists()


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
