"""What a run tells: records that a resumed run does not double, events that TensorBoard reads."""

import json
import struct
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from psrjax.training import writer


def steps(directory):
    return [json.loads(line)["step"] for line in (directory / "metrics.jsonl").open()]


def events(path):
    """The events of a file, by the format's own description: length, crc, bytes, crc."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def write(directory, start, count):
    record = writer.Writer(directory, start)
    for step in range(start + 1, start + count + 1):
        record.write(step, {"generator/l1": step / 2, "learning_rate": 1e-4})
    record.close()


def test_a_run_that_goes_on_from_an_earlier_step_writes_its_lines_once(tmp_path):
    write(tmp_path, 0, 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "gener')  # cut off
    write(tmp_path, 3, 3)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_events_hold_the_numbers_and_say_where_the_run_went_on(tmp_path):
    write(tmp_path, 4, 2)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, start, *records = events(path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (5, start.session_log.START)
    found = [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in records]
    assert found == [(5, "generator/l1", 2.5), (6, "generator/l1", 3.0)]


def test_what_a_method_finds_wrong_in_its_log_is_told_once(tmp_path, caplog):
    warnings = lambda numbers: ["it has collapsed"] if numbers["stays"] > 0.9 else []  # noqa: E731
    record = writer.Writer(tmp_path, 0, warnings)
    with caplog.at_level("WARNING", "absl"):
        for step, stays in ((1, 0.5), (2, 0.95), (3, 0.99)):
            record.write(step, {"generator/stays": stays})
    record.close()
    assert caplog.messages == ["step 2: it has collapsed"]


def test_a_gradient_of_exactly_0_is_told_once_with_its_update(tmp_path, caplog):
    collapsed = lambda numbers: ["it has collapsed"]  # noqa: E731
    record = writer.Writer(tmp_path, 0, collapsed)
    with caplog.at_level("WARNING", "absl"):
        for step, norm in ((1, 0.1), (2, 0.0), (3, 0.0)):
            record.write(step, {"generator/grad_norm": norm, "discriminator/grad_norm": 1.0})
    record.close()
    first, message = caplog.messages
    assert first == "step 1: it has collapsed"
    assert message.startswith("step 2: the gradient of generator is exactly 0")
    assert "config.optimizer.generator.clip_norm" in message


def test_where_nobody_watches_progress_is_a_line_with_rate_time_left_and_loss(caplog, monkeypatch):
    now = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: next(now)))
    with caplog.at_level("INFO", "absl"):
        progress = writer.Progress("layer1", 100, 200)
        progress.note({"generator": 0.5})
        for step in (110, 120, 130):
            progress.update(step)
        progress.close()
    assert caplog.messages == [
        "layer1: step 120 of 200, 1.00 steps/s, 0:01:20 left, generator 0.5",
    ]


def test_the_table_of_parameters_counts_each_net(tmp_path, caplog):
    with caplog.at_level("INFO", "absl"):
        zeros = writer.jax.numpy.zeros
        writer.describe_parameters(tmp_path, {"a": {"w": zeros((3, 4))}, "b": {"w": zeros(5)}})
    assert "a 12, b 5" in caplog.text
    assert "a/w" in (tmp_path / "parameters.txt").read_text()


def test_tensorboard_reads_the_events(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs TensorBoard: pip install tensorboard",
    )
    write(tmp_path, 0, 3)
    found = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in found.Scalars("generator/l1")] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
    ]
