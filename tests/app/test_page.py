"""The page `psrjax app` makes a video from files that are given to it, in a real browser."""

import json
import urllib.error
import urllib.request

import browser
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import psrjax
from psrjax import config as config_lib
from psrjax.data import video
from psrjax.methods import base

pytest.importorskip("gradio", reason="needs Gradio: pip install 'psrjax[app]'")

SIZE = (24, 32)
pytestmark = pytest.mark.slow  # ten seconds, a browser among them
needs_browser = pytest.mark.skipif(not browser.find(), reason="no Chromium here")


class Brightness(base.Method):
    """Shows the source's mean colour; or, where it is told so, the driving frames."""

    shows: str = "person"

    @property
    def reads(self):
        return ("source", "target")

    @property
    def choices(self):
        return {"shows": ("person", "motion")}

    @property
    def transfer_fields(self):
        return ("shows",)

    def start(self, batch):
        return batch["source"][:, :1].mean((2, 3), keepdims=True)

    def synthesize(self, batch, carry, intermediates=False):
        still = 0 * batch["target"] + carry
        made = still if self.shows == "person" else batch["target"]
        return {"video": made}, jnp.asarray(carry)

    def baselines(self, batch):
        return {}


@pytest.fixture
def folder(tmp_path, dataset_folder, monkeypatch):
    """A folder with one run, of `Brightness`, a picture, a video and a broken one."""
    from psrjax.app import transfer_tab

    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "cache"))
    settings = {"data.path": str(dataset_folder), "data.sampling.t": 4}
    config = config_lib.load("psrnet:tiny", settings)
    model = psrjax.Model(Brightness(), {}, config, "layer1")
    monkeypatch.setattr(transfer_tab, "load", lambda folder, name: model)
    run = tmp_path / "runs" / "lamp"
    run.mkdir(parents=True)
    (run / "config.json").write_text(config_lib.to_json(config))
    Image.fromarray(np.full((*SIZE, 3), 200, np.uint8)).save(tmp_path / "me.png")
    moving = np.random.default_rng(0).integers(0, 255, (20, *SIZE, 3), np.uint8)
    video.write(tmp_path / "dance.mp4", moving, fps=10)
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    return tmp_path


@pytest.fixture
def served(folder, monkeypatch):
    from psrjax.app import page, poses

    monkeypatch.setattr(poses.detector, "installed", lambda: False)
    monkeypatch.setattr("psrjax.inference.footage.detector.installed", lambda: False)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which `serve` sets
    shown = page.serve(folder / "runs", folder / "data", host="127.0.0.1", port=0, max_upload=1)
    yield shown
    shown.close()


def status_of(url, **headers):
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_the_server_gives_out_no_file_but_its_own(served, folder):
    assert served.url.startswith("http://127.0.0.1:")
    own = folder / "cache" / "app" / "result.txt"
    own.write_text("made")
    given = f"{served.url}gradio_api/file="
    assert status_of(f"{given}{own}") == 200
    for other in ("/etc/passwd", folder / "me.png", f"{own.parent}/../../me.png", __file__):
        assert status_of(f"{given}{other}") in (403, 404), other
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{given}http://example.org/picture.png", timeout=30)
    assert refused.value.read() == b"only own files"
    assert status_of(served.url, Host="elsewhere.example") == 400
    config = json.loads(urllib.request.urlopen(f"{served.url}config", timeout=30).read())
    assert config["analytics_enabled"] is False
    assert config["max_file_size"] == 2**20


@needs_browser
def test_a_video_is_made_in_the_browser_by_uploads_and_clicks(served, folder):
    with browser.page(folder / "profile") as page:
        assert page.open(served.url)
        assert page.wait("document.querySelector('#about')?.innerText.includes('frames of 32x24')")

        page.evaluate("document.querySelector('#go').click()")  # nothing was given yet
        assert page.wait(said("Step 1"))
        give(page, "#picture", folder / "me.png")
        give(page, "#driving", folder / "broken.mp4")
        page.evaluate("document.querySelector('#go').click()")
        assert page.wait(said("broken.mp4"))
        assert page.evaluate("!document.body.innerText.includes('Traceback')")

        page.evaluate("document.querySelector('#driving [aria-label=\"Clear\"]').click()")
        give(page, "#driving", folder / "dance.mp4")
        page.evaluate("document.querySelector('#go').click()")
        assert page.wait(said("Done: 20 frames"))
        shown = "document.querySelector('#result video')"
        assert page.wait(f"{shown}?.videoWidth === {SIZE[1]} && {shown}.readyState >= 2")
        assert page.evaluate(f"{shown}.duration") == pytest.approx(2.0, abs=0.11)
        assert page.wait("document.querySelectorAll('#slider img').length >= 2")
        assert page.errors == []
        assert {url.split("/")[2] for url in page.requests if url.startswith("http")} == {
            served.url.split("/")[2]
        }
        address = page.evaluate(f"{shown}.currentSrc")
    with urllib.request.urlopen(address, timeout=30) as answer:
        (folder / "made.mp4").write_bytes(answer.read())
    np.testing.assert_allclose(video.read(folder / "made.mp4").frames, 200, atol=4)


@needs_browser
def test_the_motion_may_be_recorded_by_the_camera(served, folder):
    def press(name):
        button = f"document.querySelector('#driving button{name}')"
        assert page.wait(f"{button} !== null")
        page.evaluate(f"{button}.click()")

    with browser.page(folder / "profile") as page:
        assert page.open(served.url)
        assert page.wait("document.querySelector('#about')?.innerText.includes('frames of 32x24')")
        give(page, "#picture", folder / "me.png")
        press('[aria-label="Capture from camera"]')
        press(":not([aria-label])")  # "click to access webcam"
        press('[aria-label="start recording"]')
        assert page.wait("document.querySelector('#driving button').innerText.includes('Stop')")
        page.evaluate("new Promise(done => setTimeout(done, 4000))")
        press("")  # stops it
        recorded = "document.querySelector('#driving video')?.currentSrc"
        assert page.wait(f"{recorded}?.includes('file=')")
        page.evaluate("document.querySelector('#go').click()")
        assert page.wait(said("Done: ")), page.evaluate(
            "document.querySelector('#status').innerText"
        )
        assert page.wait("document.querySelector('#result video')?.readyState >= 2")
        shown = page.evaluate("document.querySelector('#result video').currentSrc")
        seconds = page.evaluate("document.querySelector('#result video').duration")
    with urllib.request.urlopen(shown, timeout=30) as answer:
        (folder / "made.mp4").write_bytes(answer.read())
    made = video.read(folder / "made.mp4")
    assert len(made.frames) and seconds > 0  # a busy machine records few
    np.testing.assert_allclose(made.frames, 200, atol=4)


def said(text):
    return f"document.querySelector('#status').innerText.includes({text!r})"


def give(page, place, *paths):
    """Puts files into the upload of a component, and waits until they are there."""
    selector = f"{place} input[type=file]"
    assert page.wait(f"document.querySelector('{selector}') !== null")
    found = page.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
    files = [str(path) for path in paths]
    page.call("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=files)
    name = paths[-1].name
    assert page.wait(
        f"document.querySelector('{place}').innerHTML.includes('{name}') || "
        f"[...document.querySelectorAll('{place} img')].some(i => i.src.includes('file='))"
    )
