"""Many transfers in one call: every pair once, compiled once, resumable, failures told."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.inference import batch_transfer, transfer
from psrjax.methods import base

SIZE = (16, 24)
TRACED = []


class Method(base.Method):
    """The mean of the source frame and of each driving frame."""

    @property
    def reads(self):
        return ("source", "target")

    def start(self, batch):
        return batch["source"][:, :1]

    def synthesize(self, batch, carry, intermediates=False):
        TRACED.append(batch["target"].shape)
        return {"video": (batch["target"] + carry) / 2}, jnp.asarray(carry)


@pytest.fixture
def files(tmp_path):
    """Two pictures of people and two videos of motion."""
    for name, gray in (("a", 40), ("b", 80)):
        picture = np.full((*SIZE, 3), gray, np.uint8)
        picture[:4] = 255
        (tmp_path / "people").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"people/{name}.png")
    for name, count in (("walk", 5), ("jump", 11)):
        frames = np.random.default_rng(count).integers(0, 255, (count, *SIZE, 3), np.uint8)
        video.write(tmp_path / f"moves/{name}.mkv", frames, lossless=True)
    return tmp_path


def run(files, pairs, *, output="out/*.mkv", made=None, overwrite=False, **made_by):
    sampling = {"source": "first", "k": 1, "t": 2}
    config = ConfigDict({"data": {"sampling": sampling, "crop": SIZE, "path": ""}})
    config.data.update({"eval_split": "test", "train_split": "train"})

    def ready(pair):
        if made is not None:
            made.append(pair.name)
        inputs = transfer.open_inputs(config, source=pair.source, driving=pair.driving)
        options = transfer.TransferOptions(check_person=False)
        return transfer.Transfer(Method(), {}, config, inputs, options)

    options = {"made_by": made_by, "overwrite": overwrite}
    return batch_transfer.write(pairs, ready, files / output, **options)


def found(files):
    return batch_transfer.find(f"{files}/people/*.png", f"{files}/moves/*.mkv", "")


def test_every_source_is_shown_in_every_motion_by_one_compilation(files):
    TRACED.clear()
    done = run(files, found(files))
    names = ["a_in_jump", "a_in_walk", "b_in_jump", "b_in_walk"]
    assert sorted(path.name for path in done.paths) == sorted(
        [*(f"{name}.mkv" for name in names), "contact_sheet.png", "table.csv"]
    )
    assert len(TRACED) == 1 and not done.failed
    assert len(video.read(files / "out/b_in_jump.mkv").frames) == 11
    rows = list(csv.DictReader((files / "out/table.csv").read_text().splitlines()))
    assert [(row["name"], row["frames"]) for row in rows] == list(zip(names, "11 5 11 5".split()))
    assert [line.split()[0] for line in done.text.splitlines()[1:]] == names


def test_the_contact_sheet_shows_source_driving_and_result_of_each(files):
    run(files, found(files))
    sheet = np.asarray(Image.open(files / "out/contact_sheet.png")).astype(int)
    scale = 96 // SIZE[0]
    rows = sheet.reshape(4, 20 + 96, -1, 3)[:, 20:, ::scale][:, ::scale]
    panels = rows.reshape(4, SIZE[0], 9, SIZE[1], 3).transpose(2, 0, 1, 3, 4)
    source, driving, results = panels[0], panels[1::2], panels[2::2]
    assert (source[:2, 4:] == 40).all() and (source[2:, 4:] == 80).all()
    np.testing.assert_allclose(results, (source + driving) / 2, atol=4)  # H.264 is not exact


def test_a_second_call_makes_only_what_is_new_or_changed(files):
    run(files, found(files), seed=0)
    again = []
    run(files, found(files), made=again, seed=0)
    assert again == []
    (files / "out/a_in_walk.mkv").unlink()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(files / "people/c.png")
    run(files, found(files), made=again, seed=0)
    assert again == ["a_in_walk", "c_in_jump", "c_in_walk"]
    run(files, found(files)[:1], made=again, seed=1)
    assert again[3:] == ["a_in_jump"]  # another option


def test_one_that_fails_is_told_and_the_others_are_made(files):
    (files / "moves/cut.mkv").write_bytes(b"no video")
    done = run(files, found(files))
    assert len(done.failed) == 2 and all("cut.mkv" in line for line in done.failed)
    assert len(list((files / "out").glob("*_in_walk.mkv"))) == 2
    (files / "moves/cut.mkv").write_bytes((files / "moves/walk.mkv").read_bytes())
    again = []
    assert not run(files, found(files), made=again).failed
    assert again == ["a_in_cut", "b_in_cut"]


def test_pairs_are_read_from_csv_beside_which_their_files_lie(files):
    (files / "pairs.csv").write_text("source,driving,note\npeople/a.png,moves/walk.mkv,x\n")
    (pair,) = batch_transfer.find("", "", str(files / "pairs.csv"))
    assert pair.source == str(files / "people/a.png")
    assert pair.driving == str(files / "moves/walk.mkv") and pair.name == "a_in_walk"
    assert not run(files, [pair], output="from_csv").failed
    assert (files / "from_csv/a_in_walk.mp4").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,driving\na,b\n", "needs a first line with source,driving"),
        ("source,driving\n", "needs a first line with source,driving"),
        ("source,driving\na.png,b.mp4\nc.png,\n", "line 3: names no driving"),
    ],
)
def test_a_csv_file_that_lacks_something_is_told(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        batch_transfer.find("", "", str(tmp_path / "pairs.csv"))


def test_a_pattern_without_files_is_told_and_a_single_transfer_is_no_batch(files):
    with pytest.raises(UserError, match="no file has such a name"):
        batch_transfer.find("", f"{files}/moves/*.avi", "")
    assert batch_transfer.find("a.png", "b.mp4", "") == ()


def test_a_batch_that_is_killed_while_it_makes_a_pair_makes_it_again_and_no_other(
    files, monkeypatch
):
    save, made = transfer.save, []

    def killed(made, output, **options):
        save(made, output, **options)
        if output.stem == "b_in_jump":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(transfer, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(files, found(files))
    assert (files / "out/b_in_jump.mkv").exists()
    assert not run(files, found(files), made=made).failed
    assert made == ["b_in_jump", "b_in_walk"]


def test_a_file_of_somebody_else_is_not_written_over(files):
    (files / "out").mkdir()
    (files / "out/b_in_walk.mkv").write_text("mine")
    with pytest.raises(UserError, match=r"b_in_walk\.mkv: is there already; --overwrite"):
        run(files, found(files))
    assert [path.name for path in (files / "out").iterdir()] == ["b_in_walk.mkv"]
    assert not run(files, found(files), overwrite=True).failed
    assert len(video.read(files / "out/b_in_walk.mkv").frames) == 5
