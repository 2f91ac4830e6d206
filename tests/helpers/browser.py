"""Opens pages in headless Chromium, over the pipe of its DevTools protocol."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--mute-audio",
)
# A camera that shows a turning figure, and that every page may use.
FLAGS += ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
FLAGS += ("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe")


def find():
    """Finds the path of a browser; "" where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), "")


class Page:
    """A page, its requests, its errors, and access to it by JavaScript."""

    def __init__(self, send, receive):
        self._send, self._receive = send, receive
        self._buffer, self._count = b"", 0
        self.requests, self.errors = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    _session = None

    def call(self, method, seconds=60, **params):
        """Calls a method of the protocol and returns its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            answer = self._read(deadline)
            if answer.get("id") == self._count:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self, deadline):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select(
                [self._receive], [], [], max(0, deadline - time.monotonic())
            )
            assert ready, "the browser does not answer"
            self._buffer += os.read(self._receive, 1 << 20)
        line, self._buffer = self._buffer.split(b"\0", 1)
        event = json.loads(line)
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(event["params"])
        return event

    def open(self, url):
        """Loads a page and waits until it is complete."""
        self.call("Page.navigate", url=url)
        return self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression):
        """Evaluates a JavaScript expression, awaited if it is a promise."""
        options = {"returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition, seconds=60):
        """Waits until an expression is true; returns False if it never was."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.evaluate(condition):
                return True
            time.sleep(0.1)
        return False

    def screenshot(self, path, width=1200, height=0):
        """Writes the whole page, or its first `height` pixels, as a picture."""
        height = height or self.evaluate("document.documentElement.scrollHeight")
        size = {"width": width, "height": min(height, 16000), "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=False, **size)
        found = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def page(profile):
    """Opens a fresh page of a browser that is ended afterwards.

    Args:
      profile: an empty folder for the browser's files.
    """
    read_end, send = os.pipe()
    receive, write_end = os.pipe()
    command = [find(), *FLAGS, f"--user-data-dir={profile}"]
    # The protocol is spoken on descriptors 3 and 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{read_end} 4>&{write_end}', "browser", *command]
    process = subprocess.Popen(
        shell, pass_fds=(read_end, write_end), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(read_end)
    os.close(write_end)
    try:
        yield Page(send, receive)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(send)
        os.close(receive)
