"""Files are written whole or not at all, and a file that cannot be read is named."""

import errno
import json

import pytest

from psrjax import io
from psrjax.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "results.json"
    io.write_json(path, [1, 2])
    with pytest.raises(RuntimeError), io.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert json.loads(path.read_text()) == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_full_disk_is_said_in_one_line_with_the_file(tmp_path):
    with pytest.raises(UserError, match=r"out\.mp4: the disk is full"):
        with io.replacing(tmp_path / "out.mp4"):
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe\x00", b""])
def test_a_truncated_or_foreign_json_file_is_named(tmp_path, content):
    path = tmp_path / "camera.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"camera\.json: not JSON"):
        io.read_json(path)


def test_what_the_disk_refuses_is_one_line_and_what_is_our_mistake_is_not():
    full = io.explained(OSError(errno.ENOSPC, "No space left on device", "out.mp4"))
    assert isinstance(full, io.DiskFullError) and str(full).startswith("out.mp4: the disk is full")
    for number in (errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO):
        told = str(io.explained(OSError(number, "", "a b/out.mp4")))
        assert told.startswith("a b/out.mp4: ") and "\n" not in told
    assert io.explained(OSError(errno.EBADF, "Bad file descriptor", "out.mp4")) is None
    assert io.explained(OSError("no number")) is None


def test_an_empty_path_is_not_the_current_folder():
    with pytest.raises(UserError, match="an empty path"):
        io.absolute("")


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(UserError, match="absent.json: no such file"):
        io.read_json(tmp_path / "absent.json")
