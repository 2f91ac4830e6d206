"""Tables of the papers: their numbers are the printed ones; runs are planned, resumed, compared."""

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from psrjax import config as configs
from psrjax.data import loader, sampling
from psrjax.data.source import Clip, View
from psrjax.errors import UserError
from psrjax.evaluation import failure_gallery, method_evaluation, score_statistics
from psrjax.methods import base
from psrjax.reporting import demo, filled_table, paper_tables, reproduce
from psrjax.runtime import machine
from psrjax.synthetic import dataset as synthetic
from psrjax.training import checkpoint, stages

PAPERS = Path(__file__).parents[3] / "shared" / "papers"
TABLES = paper_tables.tables()
ABOUT = ("split", "windows", "window_frames", "height", "width")


@pytest.mark.parametrize("name", TABLES)
def test_every_number_is_printed_in_the_paper(name):
    text = PAPERS / f"{TABLES[name].method}.txt"
    if not text.exists():
        pytest.skip(f"the paper's text is not at {text}")
    printed = text.read_text()
    corrected = {("psrnet-table3", 0.954): "95.4", ("psrnet-table4", 10.0): ".1"}  # misprints
    for row in TABLES[name].rows:
        for column, value in row.paper.items():
            forms = {f"{value:g}", f"{value:.2f}", f"{value:.3f}", f"{value:.1f}"}
            forms |= {form.removeprefix("0") for form in forms}
            forms |= {corrected.get((name, value), f"{value:g}")}
            assert any(form in printed for form in forms), (row.label, column, value)


def test_every_paper_and_every_numbered_table_is_there():
    assert {table.method for table in TABLES.values()} == {
        *("psrnet", "internet", "mfci", "hpt", "d2gnet")
    }
    assert {name for name in TABLES if name.startswith("psrnet-table")} == {
        f"psrnet-table{number}" for number in (1, 2, 3, 4)
    }


@pytest.mark.parametrize("name", TABLES)
def test_the_variant_of_every_row_is_known_to_the_config(name):
    table = TABLES[name]
    for row in table.rows:
        for scale in table.scales if row.variant is not None else ():
            assert paper_tables.load(table, row.variant, scale).method.name == table.method
            if row.after:
                paper_tables.load(table, row.after, scale)


def test_rows_of_one_config_share_a_run(tmp_path):
    (run,) = reproduce.plan(TABLES["psrnet-table3"], "tiny", tmp_path)
    assert run.labels == ("G, k = 1", "G, k = 2", "G, k = 3") and run.after is None
    assert run.config.data.crop == (48, 48)  # the scale's variant
    assert run.config.overrides.layer1.steps != run.config.steps  # and its values


def test_rows_that_begin_with_another_run_start_from_its_last_stage(tmp_path):
    runs = reproduce.plan(TABLES["psrnet-table2"], "tiny", tmp_path)
    assert [run.config.method.encoder for run in runs] == [
        *("separate", "concat_all", "concat_videos")
    ]
    assert len({run.folder for run in runs}) == 3
    for run in runs:
        assert run.after.config.only == ("layer1",) and run.config.only == ("layer2",)
        assert run.config.init.path == os.fspath(run.after.folder) == os.fspath(tmp_path / "layer1")
        assert run.config.init.stage == "layer1"


def test_a_table_that_cannot_be_filled_says_why(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="mfci-table2: people judged"):
        reproduce.plan(TABLES["mfci-table2"], "tiny", tmp_path)
    with pytest.raises(UserError, match="no scale 'huge'; there are tiny, demo, small, paper"):
        reproduce.plan(TABLES["psrnet-table1"], "huge", tmp_path)
    with pytest.raises(UserError, match="no table 'psrnet-table9'; there are .*psrnet-table3"):
        paper_tables.find("psrnet-table9")
    monkeypatch.setattr(paper_tables, "MEASURED", ("psnr",))
    with pytest.raises(UserError, match="psrnet-table4: no evaluation .* kp_l2, pck@0.2"):
        reproduce.plan(TABLES["psrnet-table4"], "tiny", tmp_path)


def test_a_method_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "available", lambda: ("psrnet",))
    with pytest.raises(UserError, match="internet-table2: the method 'internet' is not in this"):
        reproduce.plan(TABLES["internet-table2"], "tiny", tmp_path)


def found(quality, names=("layer1",)):
    """An evaluation whose frames have known scores: `quality` dB more or less, six clips."""
    noise = np.random.default_rng(0).normal(size=6)  # the same in all runs: hard and easy clips
    scored = [
        score_statistics.Scored("step", name, "1->2", f"clip{i}", 0, scores_of(quality + n + place))
        for place, name in enumerate(names)
        for i, n in enumerate(noise)
    ]
    rows = score_statistics.rows(scored, dict.fromkeys(ABOUT, 3))
    return method_evaluation.Evaluation(rows, [], scored, failure_gallery.Gallery())


def scores_of(psnr):
    values = {"psnr": psnr, "ssim_uniform7": psnr / 40, "m_ssim_zero": 0.9, "m_psnr_zero": -psnr}
    return {metric: np.full(2, value, np.float64) for metric, value in values.items()}


@pytest.fixture
def work(monkeypatch):
    """Training and evaluation that only write down what they were asked for."""
    done = {"trained": [], "scored": []}

    def train(config, folder):
        done["trained"].append(Path(folder).name)
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text(json.dumps(config.to_dict()))

    def evaluate(method, variables, config, **options):
        done["scored"].append(method)
        name, _, seed = method.partition("-seed")
        quality = {"layer1_context": 23.3, "layer1_common_head": 23.0, "layer1": 22.0}[name]
        return found(quality + {"": 0.0, "1": 0.2}[seed] * (name == "layer1_common_head") * 2)

    monkeypatch.setattr(stages, "train", train)
    monkeypatch.setattr(
        checkpoint, "restore_for_inference", lambda folder: (folder.name, {}, None, "")
    )
    monkeypatch.setattr(method_evaluation, "evaluate", evaluate)
    monkeypatch.setattr(method_evaluation, "scored_frames", lambda *args, **options: (6, 16))
    monkeypatch.setattr(demo, "show_clips", lambda *args: None)
    return done


def test_a_table_is_trained_scored_and_filled_and_a_second_call_scores_nothing(work, tmp_path):
    table = TABLES["psrnet-table1"]
    filled = reproduce.fill(table, "tiny", tmp_path)
    names = ["layer1_context", "layer1_common_head", "layer1"]
    assert work == {"trained": names, "scored": names}
    assert [row["ours"]["PSNR"] for row in filled["rows"]] == pytest.approx(
        [found(q).rows[0]["metrics"]["psnr"] for q in (23.3, 23.0, 22.0)]
    )
    assert [row["paper"]["PSNR"] for row in filled["rows"]] == [23.32, 23.16, 23.13]
    for name in ("table.json", "table.md", "table.csv", "table.tex", "report.html"):
        assert (tmp_path / name).stat().st_size > 100
    again = reproduce.fill(table, "tiny", tmp_path)
    assert work == {"trained": names, "scored": names}
    assert again["rows"] == filled["rows"] and again["orderings"] == filled["orderings"]


def test_a_run_scored_at_another_scale_is_scored_again(work, tmp_path):
    reproduce.fill(TABLES["psrnet-table1"], "tiny", tmp_path)
    reproduce.fill(TABLES["psrnet-table1"], "demo", tmp_path)
    assert len(work["scored"]) == 6


def test_orderings_that_hold_and_that_do_not_are_told(work, tmp_path):
    filled = reproduce.fill(TABLES["psrnet-table1"], "tiny", tmp_path)
    holds = {
        (o["column"], o["better"], o["worse"]): (o["holds"], o["sure"]) for o in filled["orderings"]
    }
    first, second, third = (row.label for row in TABLES["psrnet-table1"].rows)
    assert holds["PSNR", first, second] == (True, True)
    assert holds["PSNR", second, third] == (True, True)
    assert holds["SSIM", third, second] == (False, True)  # the paper has .801 over .795
    assert holds["M-PSNR", third, first] == (True, True)
    assert ("M-SSIM", first, third) not in holds  # equal in the paper
    assert holds["M-SSIM", first, second] == (False, False)  # equal here
    said = {sentence["text"]: sentence["good"] for sentence in filled_table.sentences(filled)}
    assert said["PSNR: 3 of 3 orderings of the paper hold, 3 of them beyond chance"] is True
    assert said["SSIM: 2 of 3 orderings of the paper hold, 2 of them beyond chance"] is False
    broken = next(text for text in said if text.startswith("SSIM: Separate heads over Common"))
    assert "does not hold" in broken and "chance" not in broken


def test_what_no_row_has_takes_no_place_in_the_table():
    column = {"digits": 1, "lower": False}
    filled = {
        "columns": [
            {**column, "name": "VFID", "metric": "vfid"},
            {**column, "name": "PSNR", "metric": "psnr"},
            {**column, "name": "E_temp", "metric": "e_temp"},
        ],
        "rows": [{"label": "Ours", "ours": {"PSNR": 30.0}, "paper": {"VFID": 7.5, "PSNR": 37.4}}],
    }
    assert filled_table.cells(filled) == [
        ["", "VFID (paper)", "PSNR", "(paper)"],
        ["Ours", "(7.5)", "30.00", "(37.4)"],
    ]


def test_a_column_that_nothing_fills_is_said(tmp_path):
    results = {
        label: [filled_table.Result(tmp_path, *scores_and_clips(found(20, ("layer1", "layer2"))))]
        for label in ("G, k = 1", "G, k = 2")
    }
    about = {"obstacles": {"fvd": "fvd: no weights i3d.npz"}}
    filled = filled_table.make(TABLES["psrnet-table3"], results, about)
    said = [sentence["text"] for sentence in filled_table.sentences(filled)]
    assert "FVD: not measured here (no weights i3d.npz)" in said
    assert said.index(TABLES["psrnet-table3"].note) == 1  # after the frames that it stands on
    rows = {row["label"]: row for row in filled["rows"]}
    assert rows["G, k = 2"]["ours"]["PSNR"] == pytest.approx(rows["G, k = 1"]["ours"]["PSNR"] + 1)
    assert rows["PG2"]["ours"] == {} and rows["PG2"]["paper"]["M-SSIM"] == 0.954
    lines = filled_table.markdown(filled).splitlines()
    assert any(line.startswith("| PG2 |  | (0.582) |") for line in lines)
    assert any(line.startswith("- other systems, printed numbers only: PG2, ") for line in lines)


def test_columns_without_numbers_for_one_reason_are_one_sentence(tmp_path):
    table = TABLES["hpt-table2"]
    filled = filled_table.make(table, {}, {"obstacles": dict.fromkeys(table.columns.values(), "x")})
    said = [sentence["text"] for sentence in filled_table.sentences(filled)]
    assert f"{', '.join(table.columns)}: not measured here (x)" in said


def scores_and_clips(evaluated):
    return evaluated.rows, score_statistics.clip_rows(evaluated.scored)


def test_rows_that_are_one_run_at_this_scale_are_said_and_not_compared(tmp_path):
    results = {
        row.label: [filled_table.Result(tmp_path, *scores_and_clips(found(20)))]
        for row in TABLES["psrnet-table1"].rows
    }
    filled = filled_table.make(TABLES["psrnet-table1"], results, {})
    assert filled["orderings"] == []
    said = [sentence["text"] for sentence in filled_table.sentences(filled)]
    assert "one run at this scale: Context-based, Common head, Separate heads" in said


def test_rows_of_several_seeds_are_means_and_an_ordering_is_sure_where_every_seed_agrees(
    work, tmp_path
):
    filled = reproduce.fill(TABLES["psrnet-table1"], "tiny", tmp_path, seeds=2)
    assert len(work["scored"]) == 6 and "layer1_common_head-seed1" in work["trained"]
    seeds = {json.loads(file.read_text())["seed"] for file in tmp_path.glob("*-seed1/config.json")}
    assert seeds == {1}
    first, second, third = filled["rows"]
    single = [found(q).rows[0]["metrics"]["psnr"] for q in (23.0, 23.4)]
    assert second["ours"]["PSNR"] == pytest.approx(np.mean(single))
    assert second["interval"]["PSNR"] == pytest.approx(single)
    holds = {
        (o["better"], o["worse"]): (o["holds"], o["sure"])
        for o in filled["orderings"]
        if o["column"] == "PSNR"
    }
    assert holds[first["label"], second["label"]] == (True, False)  # 23.3 over 23.0, 23.4
    assert holds[second["label"], third["label"]] == (True, True)
    said = [sentence["text"] for sentence in filled_table.sentences(filled)]
    assert "PSNR: 3 of 3 orderings of the paper hold, 2 of them with every seed" in said
    with pytest.raises(UserError, match="--seeds=0"):
        reproduce.plan(TABLES["psrnet-table1"], "tiny", tmp_path, seeds=0)


def test_a_run_begins_with_the_run_of_its_own_seed(tmp_path):
    runs = reproduce.plan(TABLES["hpt-table1"], "tiny", tmp_path, seeds=3)
    full = [run for run in runs if "Full" in run.labels]
    assert [run.config.seed for run in full] == [0, 1, 2]
    assert [run.after.config.seed for run in full] == [0, 1, 2]
    names = ["transfer", "transfer-seed1", "transfer-seed2"]
    assert [run.config.init.path for run in full] == [os.fspath(tmp_path / name) for name in names]


def test_a_table_says_on_what_it_stands(work, tmp_path):
    said = filled_table.sentences(reproduce.fill(TABLES["psrnet-table1"], "tiny", tmp_path))
    assert said[0]["text"] == "scored on 12 frames of 6 clips at 3x3"


def test_a_table_names_the_commit_and_machine_of_each_run_not_of_the_last_call(
    work, tmp_path, monkeypatch
):
    monkeypatch.setattr(machine, "commit", lambda: "aaaaaaa")
    monkeypatch.setattr(machine, "describe", lambda: "2 cores")
    table = TABLES["psrnet-table1"]
    reproduce.fill(table, "tiny", tmp_path)
    monkeypatch.setattr(machine, "commit", lambda: "bbbbbbb")
    (tmp_path / "layer1" / "results.json").unlink()  # as if this run had been cut off
    filled = reproduce.fill(table, "tiny", tmp_path, command="psrjax reproduce psrnet-table1")
    assert work["scored"] == ["layer1_context", "layer1_common_head", "layer1", "layer1"]
    assert filled_table.sentences(filled)[-1]["text"] == (
        "`psrjax reproduce psrnet-table1`: commits aaaaaaa, bbbbbbb, 2 cores"
    )


def test_a_run_that_would_be_scored_on_few_frames_is_refused_before_it_is_trained(
    work, tmp_path, monkeypatch
):
    monkeypatch.setattr(method_evaluation, "scored_frames", lambda *args, **options: (1, 15))
    with pytest.raises(UserError, match="psrnet-table1: 15 frames of 1 clip would be scored, fewe"):
        reproduce.fill(TABLES["psrnet-table1"], "tiny", tmp_path)
    assert not work["trained"]


def clips_of(data):
    """A stand-in for the dataset of a config: clips and views as its settings say, unrendered."""
    settings = synthetic.make_config(data.synthetic.to_dict())
    people = settings.people_train if data.eval_split == "train" else settings.people_test
    views = {
        f"cam{i}": View(f"cam{i}", settings.frames, settings.fps, settings.size, {}, ())
        for i in range(settings.cameras)
    }
    count = people * settings.clips_per_person
    return SimpleNamespace(clips=[Clip(f"{i}", views) for i in range(count)])


@pytest.mark.parametrize("scale", ["tiny", "demo"])
@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not paper_tables.obstacle(t)])
def test_every_table_stands_on_at_least_16_frames(name, scale, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "resolve_path", lambda data: data)
    monkeypatch.setattr(loader, "open_split", lambda data, split: clips_of(data))
    for config in reproduce._scored_configs(reproduce.plan(TABLES[name], scale, tmp_path)):
        reproduce._require_frames(TABLES[name], config)


@pytest.mark.parametrize("scale", ["tiny", "demo", "small"])
@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not paper_tables.obstacle(t)])
def test_all_rows_of_a_table_are_scored_on_the_same_frames(name, scale, tmp_path):
    configs = reproduce._scored_configs(reproduce.plan(TABLES[name], scale, tmp_path))
    clip = SimpleNamespace(frames=100)
    policies = [sampling.policy(config.data.sampling) for config in configs]
    assert len({sampling.first_scored(clip, policy) for policy in policies}) == 1


def test_a_scale_that_shortens_a_stage_shortens_the_schedule_of_its_rates_too():
    for label, name in (("Full", "hpt-table1"), ("Ours (MS c)", "internet-table2")):
        table = TABLES[name]
        row = next(row for row in table.rows if row.label == label)
        size = {"variant": "demo", "steps": {"transfer": 60, "joint": 60}}
        short = dataclasses.replace(table, scales={"half": size, "whole": {"variant": "demo"}})
        stage = "joint" if "joint" in paper_tables.load(table, "", "demo").stages else "transfer"
        half, whole = (
            configs.stage_config(paper_tables.load(short, row.after or row.variant, scale), stage)
            for scale in ("half", "whole")
        )
        assert half.steps == 60
        for update, options in whole.optimizer.items():
            for key in ("decay_start_step", "decay_end_step", "milestones"):
                if key in options:
                    part = np.divide(half.optimizer[update][key], half.steps)
                    np.testing.assert_allclose(
                        part, np.divide(options[key], whole.steps), atol=0.02
                    )


# What makes a run smaller or shorter, and nothing else of a method.
SIZES = re.compile(
    r"(overrides\.\w+\.)?("
    r"steps|batch|checkpoint_steps|log_steps|data\.(crop|synthetic\..*)|"
    r"method\.(\w*width|\w*blocks|\w*layers|\w*scales|\w*num_downsamples|\w*depth|levels|hidden|"
    r"max_channels|factor|tex_size|face_size|pose_level|attention_stride|video_time_padding)|"
    r"optimizer\.\w+\.(learning_rate|decay_\w+_step|milestones))"
)


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not paper_tables.obstacle(t)])
def test_the_small_scale_is_the_papers_method_only_smaller(name):
    table = TABLES[name]
    for row in (row for row in table.rows if row.variant is not None):
        own, paper = (paper_tables.load(table, row.variant, scale) for scale in ("small", "paper"))
        changed = set(configs.differences(paper, own))
        assert {key for key in changed if not SIZES.fullmatch(key)} <= {"method.perceptual"}
        assert own.method.get("perceptual") in ("random", paper.method.get("perceptual"))


@pytest.mark.parametrize("name", [n for n, t in TABLES.items() if not paper_tables.obstacle(t)])
def test_every_scale_but_the_papers_says_what_else_it_changes(name):
    scales = TABLES[name].scales
    assert {scale for scale, size in scales.items() if size.get("note")} == {*scales} - {"paper"}
