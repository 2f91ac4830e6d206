"""The commands as people type them: their results, and their messages for mistakes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.data import loader, video
from psrjax.reporting import report
from psrjax.synthetic import dataset
from psrjax.vision import body

SERVER = Path(__file__).parent / "helpers" / "cli_server.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Everything here runs from a directory that is not the checkout, and writes there."""
    return tmp_path_factory.mktemp("some where")


@pytest.fixture(scope="module", autouse=True)
def server():
    """One device, as most people have, and the imports done once."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device" not in flag]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags)}
    environment["OPENBLAS_NUM_THREADS"] = "1"  # what forks must have no threads
    with subprocess.Popen(
        [sys.executable, SERVER],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        psrjax.server = process
        yield
        process.stdin.close()


def psrjax(folder, *arguments):
    request = {"arguments": [str(a) for a in arguments], "cwd": str(folder), "seconds": 300}
    request |= {name: str(folder / f"{name}.txt") for name in ("out", "err")}
    process = psrjax.server
    process.stdin.write(json.dumps(request) + "\n")
    process.stdin.flush()
    code = int(process.stdout.readline())
    out, err = ((folder / f"{name}.txt").read_text() for name in ("out", "err"))
    return subprocess.CompletedProcess(request["arguments"], code, out, err)


def succeed(folder, *arguments):
    done = psrjax(folder, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(folder):
    """A run of three steps in each stage, trained by the command."""
    options = ("--config.steps=3", "--config.checkpoint_steps=3", "--config.log_steps=1")
    options += ("--config.conv=native",)  # compiled in half the time
    succeed(folder, "train", "--config=psrnet:tiny", "--workdir=run", *options)
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(folder, run):
    return succeed(folder, "evaluate", "--workdir=run")


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return {"frames": np.stack(frames), "codec": stream.codec_context.name}


def test_training_writes_a_log_and_a_checkpoint_for_every_stage(run):
    stages = json.loads((run / "config.json").read_text())["stages"]
    assert stages == ["layer1", "layer2", "layer3"]
    for stage in stages:
        lines = (run / stage / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines][-1] == 3
        assert (run / stage / "checkpoints/3").is_dir()


def test_evaluate_prints_a_table_and_writes_the_rows(run, evaluated):
    rows = json.loads((run / "results.json").read_text())
    names = ["copy_source", "x0", "x0_background", "layer1", "layer2", "layer3"]
    assert [row["name"] for row in rows if row["pair"] == "all"] == names
    metrics = "ssim ssim_uniform7 psnr m_ssim_zero m_psnr_zero m_ssim_in m_psnr_in".split()
    assert all(list(row["metrics"]) == metrics for row in rows)
    assert all(np.isfinite(list(row["metrics"].values())).all() for row in rows)
    assert {row["pair"] for row in rows} == {"all", "1->2", "2->1"}  # tiny has two cameras
    lines = evaluated.splitlines()
    assert lines[0].split() == [*metrics, "clips", "frames"]
    assert [line.split()[0] for line in lines[1:7]] == names


def test_a_run_is_scored_with_another_field_of_its_method_and_the_rows_say_so(folder, run):
    options = ("--stage=layer1", "--limit=1", "--method.zeta=0.5", "--output=other")
    out = succeed(folder, "evaluate", "--workdir=run", *options)
    rows = json.loads((folder / "other/results.json").read_text())
    assert "method.zeta=0.5" in out.splitlines()
    assert all(row["about"]["notes"][-1] == "method.zeta=0.5" for row in rows)


def test_synthesize_writes_a_playable_video_and_its_comparison(folder, run):
    out = succeed(folder, "synthesize", "--workdir=run", "--frames=0:11", "--output=new/out.mp4")
    assert out.split() == ["new/out.mp4", "new/out.compare.mp4"]
    result, compare = read(folder / "new/out.mp4"), read(folder / "new/out.compare.mp4")
    assert result["codec"] == compare["codec"] == "h264"
    assert len(result["frames"]) == len(compare["frames"]) == 11
    height, width = result["frames"].shape[1:3]
    assert compare["frames"].shape[1] >= height
    assert compare["frames"].shape[2] >= 6 * width  # source, x0, three layers, truth
    told = (folder / "new/out.mp4").read_bytes()
    assert b"synthesized by psrjax" in told and b"; method psrnet; run run; stage layer3" in told


def test_synthesize_draws_what_was_computed_on_the_way(folder, run):
    (folder / "why").mkdir()
    (folder / "why/out.mp4").write_text("of yesterday")
    arguments = ("--frames=0:11", "--intermediates", "--output=why/out.mp4", "--overwrite")
    arguments = (*arguments, "--watermark")
    out = succeed(folder, "synthesize", "--workdir=run", *arguments).split()
    names = ("out.mp4", "out.compare.mp4", "out.intermediates.mp4", "out.intermediates.png")
    assert out == [f"why/{name}" for name in names]
    corner = read(folder / "why/out.mp4")["frames"][:, -2:, -60:]
    assert corner.mean() < 60  # the mark's black edge
    drawn = read(folder / "why/out.intermediates.mp4")["frames"]
    panels = ["source", "truth", "layer1", "layer2", "layer3", "prior", "visibility", "depth"]
    panels += ["background", "visible", "occluded"]
    assert len(drawn) == 11 and drawn.shape[2] == len(panels) * 192
    kinds = drawn[5, -96, 192 * panels.index("visibility") :][:192].astype(int)
    assert (kinds.max(-1) - kinds.min(-1)).max() > 60  # the body's regions have colours


TRANSFER = (
    *("source", "background", "background_as=auto", "fit=crop", "source_frames", "k=2", "seed=2"),
    *("window=2", "audio", "check_person", "find_best_frame", "adapt_scale"),
)
REFUSED = {  # {the flag that asks for something: flags that are of no use to it}
    "clip=a": ("mesh", "source_camera", *TRANSFER[1:]),  # --source asks for a transfer
    "camera=a": ("target_view", "skeletons", "mesh", "source_camera", *TRANSFER[1:]),
    "video=a": ("clip", "split", "source_view", "target_view", "skeletons", *TRANSFER[1:]),
    "driving=a": (
        *("clip", "split", "source_view", "target_view", "skeletons", "camera", "video", "mesh"),
        *("source_camera", "pairs=same_video", "pair_count=2"),
    ),
    "pairs=same_video": (
        *("clip", "target_view", "camera=a", "source_camera", "fit=crop", "watermark", "c2pa"),
    ),
}
OF_ALL = {"run", "workdir", "stage", "snapshot", "output", "frames", "intermediates", "data"}
OF_ALL |= {"overwrite"}


@pytest.mark.parametrize("asked", REFUSED)
def test_synthesize_refuses_a_flag_that_it_would_not_use(asked, folder):
    for flag in REFUSED[asked]:
        valued = flag in ("audio", "check_person", "find_best_frame", "adapt_scale", "skeletons")
        valued = valued or flag == "watermark"
        given = flag if valued or "=" in flag else f"{flag}=x"
        done = psrjax(folder, "synthesize", "--workdir=run", f"--{asked}", f"--{given}")
        assert done.returncode == 2, (flag, done.stderr[-2000:])
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"psrjax: --{flag.partition('=')[0]} goes with "), last


def test_every_flag_of_synthesize_is_of_all_or_refused_by_some():
    text = (Path(__file__).parents[1] / "psrjax/cli/synthesize.py").read_text()
    flags = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', text)) - OF_ALL
    tested = {flag.partition("=")[0] for refused in REFUSED.values() for flag in refused}
    assert flags == tested | {"source", "driving", "batch"}


@pytest.fixture(scope="module")
def filmed(folder, run):
    """A video with uneven times, the mesh of the person in it, and two cameras."""
    config = config_lib.load("psrnet:tiny")
    clip = (source := loader.open_split(dataset.resolve_path(config.data), "test")).clips[0].name
    views = {view: source.load(clip, view, range(11)) for view in ("cam1", "cam2")}
    times = np.cumsum([0.0] + [0.04, 0.08] * 5)
    frames = views["cam1"].read("frames").repeat(2, 1).repeat(2, 2)  # filmed at twice the size
    video.write(folder / "filmed.mp4", frames, times=times)
    vertices = body.pose(body.template(), views["cam1"].read("joints_3d"))
    np.savez(folder / "mesh.npz", verts=vertices, faces=body.template().faces)
    cameras = {name: view.camera for name, view in views.items()}
    height, width = cameras["cam1"].size
    cameras["cam1"] = cameras["cam1"].resized(2 * height, 2 * width)
    entries = {
        name: {
            "K": camera.matrix.tolist(),
            "R": camera.rotation.tolist(),
            "t": camera.translation.tolist(),
            "image_size": camera.size[::-1],
        }
        for name, camera in cameras.items()
    }
    (folder / "cameras.json").write_text(json.dumps(entries))
    return {"times": times, "truth": views["cam2"].read("frames")}


FILMED = (
    *("synthesize", "--workdir=run", "--video=filmed.mp4", "--mesh=mesh.npz"),
    *("--source_camera=cameras.json:cam1", "--camera=cameras.json:cam2"),
)


def test_synthesize_makes_a_view_of_a_video_by_the_persons_mesh(folder, run, filmed):
    succeed(folder, *FILMED, "--output=new/filmed.mp4")
    made = video.read(folder / "new/filmed.mp4")
    np.testing.assert_allclose(made.times, filmed["times"], atol=2e-3)
    compare = video.read(folder / "new/filmed.compare.mp4").frames
    panel = compare.shape[2] // 5  # source, x0, three layers
    transferred = compare[:, -panel:, panel : 2 * panel].astype(float).mean(-1) > 30
    height, width = filmed["truth"].shape[1:3]
    assert transferred.any((1, 2)).all()  # the person's texture is there, and not everywhere
    assert transferred.mean() < 0.5 and made.frames.shape[1] <= height


def test_a_camera_that_must_be_named_and_a_mesh_of_another_length_are_told(folder, run, filmed):
    done = psrjax(folder, *FILMED[:-1], "--camera=cameras.json")
    assert done.returncode == 2 and "cameras.json:cam1" in done.stderr.splitlines()[-1]
    done = psrjax(folder, *FILMED[:-1], "--camera=cameras.json:cam7")
    assert done.returncode == 2 and "no camera 'cam7'" in done.stderr.splitlines()[-1]
    mesh = dict(np.load(folder / "mesh.npz"))
    np.savez(folder / "short.npz", verts=mesh["verts"][:5], faces=mesh["faces"])
    done = psrjax(folder, *FILMED, "--mesh=short.npz")
    assert done.returncode == 2 and "5 meshes" in done.stderr.splitlines()[-1]


def test_the_report_stands_alone_in_one_file(folder, run, evaluated):
    succeed(folder, "report", "--workdir=run")
    page = (run / "report.html").read_text()
    assert "x0_background" in page and "<svg" in page and "layer3 against layer2" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")
    assert "https://" not in page.replace("https://matplotlib.org", "")


def test_the_demo_makes_everything_and_a_second_call_trains_nothing(folder, run):
    options = ["--config=psrnet:tiny", "--config.steps=3", "--config.checkpoint_steps=3"]
    options += ["--config.overrides.layer1.log_steps=1"]  # no key of the preset
    first = succeed(folder, "demo", "--workdir=run", *options)
    for label in ("render the people", "train", "score", "comparison", "GiB", "layer3 against"):
        assert label in first
    page = (run / "report.html").read_text()
    index = json.loads((run / "videos/index.json").read_text())
    assert page.count("data:video/mp4;base64,") == len(index) > 0
    assert index[0]["labels"] == ["source", "x0", "layer1", "layer2", "layer3", "truth"]
    for entry in index:
        assert read(run / "videos" / entry["video"])["codec"] == "h264"
    made = json.loads((run / "run.json").read_text())
    assert made["command"].startswith("psrjax demo") and made["peak_memory_gib"] > 0
    assert all(option.split("tiny")[-1] in made["command"] for option in options)
    assert all(part["done"] for part in made["parts"])


def test_the_installed_command_finds_a_working_installation(folder):
    command = Path(sys.executable).with_name("psrjax")
    done = subprocess.run([command, "doctor"], cwd=folder, capture_output=True, text=True)
    out = done.stdout
    assert done.returncode == 0, out + done.stderr
    assert "jax " in out and "BROKEN" not in out and "H.264 is written and read" in out


@pytest.mark.parametrize("arguments", (("--help",), ("data", "--help")))
def test_a_reader_that_leaves_ends_the_command_silently(arguments):
    command = Path(sys.executable).with_name("psrjax")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([command, *arguments], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 141
    assert not done.stderr


def test_a_command_whose_extra_is_missing_says_how_to_install_it():
    code = (
        "import sys; sys.modules['jinja2'] = None; sys.argv = ['psrjax', 'report', 'x']\n"
        "from psrjax.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "psrjax: psrjax report needs jinja2: pip install 'psrjax[report]'\n"


def test_method_help_lists_the_fields_of_the_runs_method(folder, run):
    lines = succeed(folder, "synthesize", "--workdir=run", "--method.help").splitlines()
    assert "--method.zeta=0.1" in lines
    assert lines[lines.index("--method.stage=layer3") + 1].startswith("    which stage")


def test_the_demo_offers_every_method_and_says_how_long_it_takes(folder):
    out = " ".join(succeed(folder, "demo", "--help").split())
    for method in config_lib.names():
        assert re.search(rf"{method} \d+ min", out)
    assert "--method=psrnet" in out


def test_help_lists_every_command(folder):
    out = succeed(folder, "--help")
    for command in ("demo", "train", "evaluate", "synthesize", "report", "reproduce", "doctor"):
        assert any(line.split()[0] == command for line in out.splitlines() if line.strip())


def test_the_version_is_told(folder):
    assert re.fullmatch(r"psrjax \d+\.\d+\.\d+\S*\n", succeed(folder, "--version"))


def test_the_help_of_train_shows_what_config_takes_and_values_as_defaults(folder):
    out = succeed(folder, "train", "--help")
    for method in config_lib.names():
        assert f"psrjax train --config={method}:demo --workdir=runs/{method}" in out
        module, words = config_lib.module(method), " ".join(out.split())
        for name in (*module.PRESETS, *module.ABLATIONS, *config_lib.load(method).stages):
            assert re.search(rf"[:,] {re.escape(name)}(,| |$)", words), (method, name)
    assert "  steps=1000 " in out and "  --processes=-1\n" in out and "(default:" not in out


def test_what_cannot_be_written_or_computed_on_is_told_before_a_run_is_opened(folder):
    for output, said in (("out.webm", "a .webm cannot be written"), ("err.txt/o.mp4", "is a file")):
        done = psrjax(folder, "synthesize", "--run=nowhere", f"--output={output}")
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1]
    done = psrjax(folder, "evaluate", "--workdir=nowhere", "--device=npu")
    assert done.returncode == 2 and "it is cpu, gpu, gpu:0" in done.stderr.splitlines()[-1]
    done = psrjax(folder, "evaluate", "--workdir=nowhere", "--device=tpu")
    assert done.returncode == 2 and "no such device" in done.stderr.splitlines()[-1]
    done = psrjax(folder, "evaluate", "--workdir=nowhere", "--device=cpu")
    assert done.returncode == 2 and "not the directory of a run" in done.stderr.splitlines()[-1]


def test_many_transfers_are_refused_where_they_are_not_whole(folder):
    (folder / "pairs.csv").write_text("source,driving\nme.mp4,\n")
    done = psrjax(folder, "synthesize", "--run=nowhere", "--batch=pairs.csv")
    assert done.returncode == 2 and "line 2: names no driving" in done.stderr.splitlines()[-1]
    done = psrjax(folder, "synthesize", "--run=nowhere", "--driving=a*.mp4")
    assert done.returncode == 2 and "no file has such a name" in done.stderr.splitlines()[-1]


TRAIN = ("train", "--workdir=other")
MISTAKES = {
    "an unknown command": (("dream",), "no command 'dream'"),
    "an unknown flag": ((*TRAIN, "--config=psrnet:tiny", "--colour=red"), "colour"),
    "an unknown variant": ((*TRAIN, "--config=psrnet:tinny"), "no variant 'tinny'.*tiny"),
    "an unknown config": ((*TRAIN, "--config=pzrnet"), "no config 'pzrnet'.*psrnet"),
    "an unknown key": ((*TRAIN, "--config=psrnet:tiny", "--config.stepz=3"), "stepz"),
    "an unknown key of one stage": (
        (*TRAIN, "--config=psrnet:tiny", "--config.overrides.layer2.stepz=3"),
        "config.stepz: no such key; did you mean config.steps",
    ),
    "a value of a wrong type": ((*TRAIN, "--config=psrnet:tiny", "--config.steps=x"), "steps"),
    "no dataset": (
        (*TRAIN, "--config=psrnet:tiny", "--config.data.path=nowhere"),
        "nowhere.*psrjax prepare",
    ),
    "a size the network cannot take": (
        (*TRAIN, "--config=psrnet:tiny", "--config.data.crop=(34,34)"),
        "34",
    ),
    "a flag that is missing": (("evaluate",), "workdir"),
    "a run without a name": (
        ("train", "--config=psrnet:tiny", "--workdir="),
        "--workdir: name the run's directory",
    ),
    "a config that is missing": (TRAIN, "--config: name a config.*psrnet"),
    "an unknown field of the method": (
        ("synthesize", "--workdir=run", "--method.zetta=1"),
        "--method.zetta: no such field; did you mean --method.zeta",
    ),
    "a value that is not of the field's type": (
        ("synthesize", "--workdir=run", "--method.zeta=x"),
        "--method.zeta=x: not a value like 0.1",
    ),
    "a value that is not among the field's choices": (
        ("synthesize", "--workdir=run", "--method.prior=x"),
        "method.prior: no 'x'; there are",
    ),
    "real videos without synthesized ones": (("evaluate", "--real=."), "--fake"),
    "a folder that is none": (("evaluate", "--real=x", "--fake=y"), "x: no such folder"),
    "sets of a run": (("evaluate", "--workdir=run", "--unpaired"), "--unpaired.*give --real DIR"),
    "masks of sets": (
        ("evaluate", "--real=x", "--fake=y", "--unpaired", "--masks=z"),
        "--masks: of no use to sets",
    ),
    "a field of videos": (
        ("evaluate", "--real=x", "--fake=y", "--method.width=4"),
        "--method.width=4: videos have no method",
    ),
    "a field that the scored method lacks": (
        ("evaluate", "--workdir=run", "--method.colour=red"),
        "--method.colour: no such field",
    ),
    "a table that is none": (("reproduce", "psrnet-table9"), "no table 'psrnet-table9'.*table3"),
    "a scale that is none": (("reproduce", "psrnet-table1", "--scale=x"), "no scale 'x'.*tiny"),
    "a conversion of nothing": (("convert",), "psrjax convert first-order-model.*FILE"),
    "a report of nothing": (("report",), "psrjax report RUN"),
    "a directory that is no run": (("evaluate", "--workdir=."), "not the directory of a run"),
    "a run of another batch": (
        ("train", "--workdir=run", "--config=psrnet:tiny", "--config.batch=4"),
        "batch=2.*4",
    ),
    "a run of another method": (
        ("train", "--workdir=run", "--config=psrnet:tiny,alpha=.3"),
        "method.alpha",
    ),
    "a stage that is none": (("evaluate", "--workdir=run", "--stage=layer9"), "layer9.*layer3"),
    "a split that is none": (("evaluate", "--workdir=run", "--split=x"), "no split 'x'.*test"),
    "a clip that is none": (("synthesize", "--workdir=run", "--clip=x"), "no clip 'x'"),
    "a view that is none": (
        ("synthesize", "--workdir=run", "--source_view=cam9"),
        "cam9.*cam1 to cam2",
    ),
    "frames beyond the clip": (
        ("synthesize", "--workdir=run", "--frames=0:9999"),
        "0:9999 was asked for",
    ),
    "too few frames": (("synthesize", "--workdir=run", "--frames=0:3"), "3 frames.*at least 8"),
    "frames that are no range": (("synthesize", "--workdir=run", "--frames=a"), "first:end"),
    "a video without a mesh": (("synthesize", "--workdir=run", "--video=a.mp4"), "--mesh"),
    "a video that would be written over": (
        ("synthesize", "--workdir=run", "--output=cut.mp4"),
        "cut.mp4: is there already; --overwrite",
    ),
    "pictures that would be written over": (
        ("synthesize", "--workdir=run", "--output=run/"),
        "run/?: holds",
    ),
    "pairs that would be written over": (
        ("synthesize", "--workdir=run", "--pairs=same_video", "--output=made"),
        "made/pairs.json: is there already",
    ),
    "a page that would be written over": (
        ("report", "run", "--output=cut.mp4"),
        "cut.mp4: is there already",
    ),
    "scores that would be written over": (
        ("evaluate", "--workdir=run", "--output=made"),
        "made/results.json: is there already",
    ),
    "a camera that would be written over": (
        ("camera", "--data=nowhere", "--between=a,b", "--output=cut.mp4"),
        "cut.mp4: is there already",
    ),
    "a watermark on pairs, which are to be scored": (
        ("synthesize", "--workdir=run", "--pairs=same_video", "--watermark"),
        "--watermark goes with",
    ),
    "a fraction that is no number": (
        ("camera", "--data=nowhere", "--between=a,b", "--fraction=nan"),
        "--fraction=nan: it lies in",
    ),
    "a truncated video": (
        (
            *("synthesize", "--workdir=run", "--video=cut.mp4", "--mesh=mesh.npz"),
            *("--source_camera=camera.json", "--camera=camera.json"),
        ),
        "cut.mp4",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_in_one_line_and_exits_with_2(name, folder, run):
    arguments, message = MISTAKES[name]
    (folder / "made").mkdir(exist_ok=True)
    for name in ("pairs.json", "results.json"):
        (folder / "made" / name).write_text("{}")
    (folder / "cut.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2")
    done = psrjax(folder, *arguments)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("psrjax: ")
    assert re.search(message, last), last


@pytest.mark.slow
def test_losses_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint(folder):
    options = ("--config=psrnet:tiny,layer1", "--workdir=sick", "--config.checkpoint_steps=1")
    succeed(folder, "train", *options, "--config.steps=1")
    rate = "--config.optimizer.generator.learning_rate=1e38"
    done = psrjax(folder, "train", *options, "--config.steps=8", "--config.log_steps=1", rate)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "finite" in done.stderr.strip().splitlines()[-1]
    assert (folder / "sick/layer1/checkpoints/1").is_dir()


def test_a_report_of_no_run_is_refused(tmp_path):
    with pytest.raises(Exception, match="not the directory of a run"):
        report.write(str(tmp_path))
