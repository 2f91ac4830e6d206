"""The page knows the runs of a folder, and how long their trainings will take."""

import pytest
from tensorboardX import SummaryWriter

from psrjax import config as config_lib
from psrjax.app import runs
from psrjax.errors import UserError


def make_run(folder, steps):
    folder.mkdir(parents=True)
    config = config_lib.load("psrnet:tiny", {"steps": steps})
    (folder / "config.json").write_text(config_lib.to_json(config))
    return folder


def record(stage, begin, end, every, seconds):
    """Writes events as TensorBoard's own library does; every `every` steps take `seconds`."""
    with SummaryWriter(str(stage)) as writer:
        for number, step in enumerate(range(begin, end + 1, every)):
            writer.add_scalar("generator/loss", 1.0, step, walltime=1000.0 + number * seconds)


def test_the_time_left_is_that_of_all_stages_at_the_pace_of_the_last_records(tmp_path):
    run = make_run(tmp_path / "run", steps=400)
    record(run / "layer1", 50, 150, every=50, seconds=10.0)  # 5 steps a second
    found = runs.stages(run, now=1030.0)
    assert [(s.name, s.step, s.steps, s.works) for s in found] == [
        ("layer1", 150, 400, True),
        ("layer2", 0, 400, False),
        ("layer3", 0, 400, False),
    ]
    assert found[0].pace == pytest.approx(5.0)
    assert runs.seconds_left(found) == pytest.approx((250 + 400 + 400) / 5.0)


def test_a_training_that_records_nothing_any_more_counts_as_stopped(tmp_path):
    run = make_run(tmp_path / "run", steps=400)
    record(run / "layer1", 50, 150, every=50, seconds=10.0)
    assert not any(stage.works for stage in runs.stages(run, now=1020.0 + 121.0))
    slow = make_run(tmp_path / "slow", steps=400)
    record(slow / "layer1", 50, 150, every=50, seconds=100.0)  # a record in 100 s is its pace
    assert runs.stages(slow, now=1200.0 + 290.0)[0].works
    assert not runs.stages(slow, now=1200.0 + 310.0)[0].works


def test_events_that_are_cut_off_are_read_up_to_there(tmp_path):
    run = make_run(tmp_path / "run", steps=400)
    record(run / "layer1", 50, 150, every=50, seconds=10.0)
    (events,) = (run / "layer1").glob("events*")
    events.write_bytes(events.read_bytes()[:-5])
    assert runs.stages(run, now=1030.0)[0].step == 100


def test_only_runs_of_the_folder_can_be_chosen(tmp_path):
    with pytest.raises(UserError, match="No run in .*: train one first"):
        runs.place(tmp_path / "runs", None)
    make_run(tmp_path / "runs" / "me", 4)
    make_run(tmp_path / "runs" / "table" / "row", 4)
    make_run(tmp_path / "else", 4)
    (tmp_path / "runs" / "taken.safetensors").touch()
    assert set(runs.find(tmp_path / "runs")) == {"me", "table/row", "taken.safetensors"}
    with pytest.raises(UserError, match="exported from a run: there is no training to watch"):
        runs.stages(runs.place(tmp_path / "runs", "taken.safetensors"))
    assert runs.place(tmp_path / "runs", "table/row") == tmp_path / "runs" / "table" / "row"
    for name in (None, "", "../else", "nothing"):
        with pytest.raises(UserError, match="Choose one"):
            runs.place(tmp_path / "runs", name)
