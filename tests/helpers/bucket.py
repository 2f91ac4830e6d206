"""A stand-in for Google Cloud Storage: objects in memory, by fsspec and by HTTP.

fsspec (which etils takes for gs://) sees them through a memory file system that is registered as
"gcs". C++ readers, of ArrayRecord and of tensorstore, ask a small server over loopback that speaks
as much of the JSON interface as they need.
"""

import contextlib
import functools
import http.server
import json
import os
import re
import sys
import threading
import types
import urllib.parse
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

NAME = "bucket"


class Bucket(MemoryFileSystem):
    """The objects, as files."""

    protocol = ("gcs", "gs")
    store: dict = {}
    pseudo_dirs = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(re.sub(r"^gc?s://", "", os.fspath(path)))


class _Handler(http.server.BaseHTTPRequestHandler):
    """Objects are read in ranges, written whole, listed by prefix and deleted."""

    protocol_version = "HTTP/1.1"
    generations: dict[str, int] = {}

    def do_GET(self):
        key, query = self._asked()
        if not key:
            return self._list(query)
        if key not in Bucket.store:
            return self._answer(404)
        data = Bucket.store[key].getvalue()
        if self.generations.setdefault(key, 1) == int(query.get("ifGenerationNotMatch", 0)):
            return self._answer(304)
        if "Range" not in self.headers:
            return self._answer(200, data, key)
        low, high = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers["Range"]).groups()
        if not low:  # the last ones
            low, high = max(0, len(data) - int(high)), len(data) - 1
        first, end = int(low), min(int(high or len(data) - 1) + 1, len(data))
        place = f"bytes {first}-{end - 1}/{len(data)}"
        return self._answer(206, data[first:end], key, {"Content-Range": place})

    def do_POST(self):
        _, query = self._asked()
        key = f"/{NAME}/{query['name']}"
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._matches(key, query):
            return self._answer(412)
        Bucket().pipe_file(f"gs:/{key}", data)
        self.generations[key] = self.generations.get(key, 0) + 1
        return self._answer(200, json.dumps(self._about(key)).encode(), key)

    def do_DELETE(self):
        key, query = self._asked()
        if key not in Bucket.store:
            return self._answer(404)
        if not self._matches(key, query):
            return self._answer(412)
        del Bucket.store[key]
        return self._answer(204)

    def log_message(self, *args):
        """Writes nothing."""

    def _asked(self):
        place = urllib.parse.urlparse(self.path)
        found = re.fullmatch(r"(?:/upload)?/storage/v1/b/[^/]+/o(?:/(.+))?", place.path)
        query = dict(urllib.parse.parse_qsl(place.query))
        return found[1] and f"/{NAME}/{urllib.parse.unquote(found[1])}", query

    def _list(self, query):
        first = f"/{NAME}/{query.get('prefix', '')}"
        keys = sorted(key for key in Bucket.store if key.startswith(first))
        names = [key.removeprefix(f"/{NAME}/") for key in keys]
        low, high = query.get("startOffset", ""), query.get("endOffset", "")
        inside = [name for name in names if name >= low and (not high or name < high)]
        items = [self._about(f"/{NAME}/{name}") for name in inside]
        return self._answer(200, json.dumps({"items": items}).encode())

    def _about(self, key):
        size, generation = len(Bucket.store[key].getvalue()), self.generations.setdefault(key, 1)
        name = key.removeprefix(f"/{NAME}/")
        numbers = {"size": str(size), "generation": str(generation), "metageneration": "1"}
        times = dict.fromkeys(("timeCreated", "updated"), "2026-01-01T00:00:00.000Z")
        return {"name": name, "bucket": NAME, "id": name, **numbers, **times}

    def _matches(self, key, query):
        now = self.generations.get(key, 1) if key in Bucket.store else 0
        return int(query.get("ifGenerationMatch", now)) == now

    def _answer(self, status, body=b"", key="", headers=()):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if key:
            self.send_header("x-goog-generation", str(self.generations.setdefault(key, 1)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    """Is silent about clients that leave."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@functools.cache
def _address():
    """Starts the server, once: tensorstore reads its variable once in a process."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def _library():
    """Google's Python client, which orbax asks one question: a bucket without real folders."""
    found = types.SimpleNamespace(hierarchical_namespace_enabled=False)
    library: Any = types.ModuleType("google.cloud.storage")
    library.Client = lambda: types.SimpleNamespace(get_bucket=lambda name: found)
    return library


@contextlib.contextmanager
def instead_of_the_cloud():
    """Makes fsspec, ArrayRecord and tensorstore take the bucket for Google's; yields its files."""
    os.environ["CLOUD_STORAGE_EMULATOR_ENDPOINT"] = _address()
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = _address()
    os.environ["GOOGLE_AUTH_TOKEN_FOR_TESTING"] = "none"
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    sys.modules["google.cloud.storage"] = _library()
    try:
        yield fsspec.filesystem("gcs")
    finally:
        del sys.modules["google.cloud.storage"]
        sys.modules["fsspec.registry"]._registry.pop("gcs")  # `fsspec.registry` is its view
