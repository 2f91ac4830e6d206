"""A hundred mistaken commands: each one line and exit code 2, before XLA compiles anything."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[1] / "helpers" / "cli_server.py"
# `file` is a file, `dir` an empty folder, `junk` a folder with a file that nobody expects; `run` is
# a folder with a config.json that is none; nothing else exists.
MISTAKES = """
dream
--train
train
train --config=psrnet:tiny
train --workdir=w
train --config=psrnet:tiny --workdir=
train --config= --workdir=w
train --config=: --workdir=w
train --config=nosuch --workdir=w
train --config=nosuch.py --workdir=w
train --config=file --workdir=w
train --config=psrnet:nosuch --workdir=w
train --config=psrnet:tiny,nosuch --workdir=w
train --config=psrnet:tiny --workdir=w --colour=red
train --config=psrnet:tiny --workdir=w --config.nosuch=1
train --config=psrnet:tiny --workdir=w --config.steps=many
train --config=psrnet:tiny --workdir=w --config.steps=0
train --config=psrnet:tiny --workdir=w --config.steps=-5
train --config=psrnet:tiny --workdir=w --config.steps=1.5
train --config=psrnet:tiny --workdir=w --config.batch=0
train --config=psrnet:tiny --workdir=w --config.batch=-2
train --config=psrnet:tiny --workdir=w --config.batch_per_device=-1
train --config=psrnet:tiny --workdir=w --config.accumulate=0
train --config=psrnet:tiny --workdir=w --config.accumulate=3
train --config=psrnet:tiny --workdir=w --config.ema=1.0
train --config=psrnet:tiny --workdir=w --config.ema=-0.1
train --config=psrnet:tiny --workdir=w --config.ema=nan
train --config=psrnet:tiny --workdir=w --config.checkpoint_steps=0
train --config=psrnet:tiny --workdir=w --config.keep_checkpoints=0
train --config=psrnet:tiny --workdir=w --config.log_steps=0
train --config=psrnet:tiny --workdir=w --config.evaluate_steps=-1
train --config=psrnet:tiny --workdir=w --config.keep_best=psnr
train --config=psrnet:tiny --workdir=w --config.batch_rates=cubic
train --config=psrnet:tiny --workdir=w --config.optimizer.generator.learning_rate=-1
train --config=psrnet:tiny --workdir=w --config.optimizer.generator.learning_rate=nan
train --config=psrnet:tiny --workdir=w --config.optimizer.nosuch.learning_rate=1
train --config=psrnet:tiny --workdir=w --config.weights.generator.nosuch=1
train --config=psrnet:tiny --workdir=w --config.only=nosuch
train --config=psrnet:tiny --workdir=w --config.mesh.data=-2
train --config=psrnet:tiny --workdir=w --config.mesh.fsdp=0
train --config=psrnet:tiny --workdir=w --config.data.path=nowhere
train --config=psrnet:tiny --workdir=w --config.data.path=file
train --config=psrnet:tiny --workdir=w --config.data.path=dir
train --config=psrnet:tiny --workdir=w --config.data.path=s3://bucket/data
train --config=psrnet:tiny --workdir=w --config.data.crop=32
train --config=psrnet:tiny --workdir=w --config.data.crop=(-1,8)
train --config=psrnet:tiny --workdir=w --config.data.workers=-2
train --config=psrnet:tiny --workdir=w --config.method.width=-4
train --config=psrnet:tiny --workdir=w --config.method.width=0
train --config=hpt:tiny --workdir=w --config.method.match_blocks=-1
train --config=psrnet:tiny --workdir=w --config.method.dtype=int8
train --config=psrnet:tiny --workdir=w --config.method.name=nosuch
train --config=psrnet:tiny --workdir=w --config.init.path=nowhere
train --config=psrnet:tiny --workdir=w --profile=5
train --config=psrnet:tiny --workdir=w --profile=9:2
train --config=psrnet:tiny --workdir=w --profile=1:99999
train --config=psrnet:tiny --workdir=w --rewind=-1
train --config=psrnet:tiny --workdir=w --rewind=7
train --config=psrnet:tiny --workdir=w --rewind=7 --replay
train --config=psrnet:tiny --workdir=file/run
train --config=psrnet:tiny --workdir=s3://bucket/run
demo --workdir=s3://bucket/run
train --config=psrnet:tiny --workdir=run
train --config=psrnet:tiny --workdir=w --device=npu
train --config=psrnet:tiny --workdir=w --device=gpu:x
train --config=psrnet:tiny --workdir=w --processes=2
synthesize
synthesize --run=nowhere
synthesize --run=dir
synthesize --run=run
synthesize --run=dir --output=out.webm
synthesize --run=dir --output=file
synthesize --run=dir --output=file/out.mp4
synthesize --run=dir --output=junk/
synthesize --run=dir --frames=a
synthesize --run=dir --frames=9:2
synthesize --run=dir --source=a --clip=b
synthesize --run=dir --source='nothing*.jpg' --driving=b.mp4
synthesize --run=dir --batch=file
synthesize --run=dir --batch=nowhere.csv
synthesize --run=dir --pairs=some
synthesize --run=dir --pairs=same_video --pair_count=0
synthesize --run=dir --snapshot=oldest
evaluate
evaluate --workdir=nowhere
evaluate --workdir=run
evaluate --workdir=dir --real=dir --fake=dir
evaluate --real=dir
evaluate --real=nowhere --fake=dir
evaluate --real=dir --fake=dir --metrics=nosuch
evaluate --workdir=dir --windows=some
evaluate --workdir=dir --k=-1
evaluate --workdir=dir --unpaired
prepare
prepare nowhere.mp4
prepare nowhere.mp4 --to=
prepare nowhere.mp4 --to=d
prepare file --to=d --joints=nowhere
prepare dir --to=d
prepare file --to=d --size=3
prepare file --to=d --size=a,b
prepare file --to=d --fps=1e300 --joints=file
prepare file --to=d --fps=-1
prepare file --to=d --seconds=nan --joints=file
prepare file --to=d --margin=9
prepare file --to=d --holdout=2
prepare file --to=d --crop=round
prepare file --to=d --cameras=a
prepare file --to=d --for=nosuch:demo
prepare file --to=d --dataset=nosuch
prepare file file --to=d --dataset=iper
prepare dir --to=d --dataset=iper
prepare nowhere --to=d --dataset=ntu_rgbd
camera
camera --data=nowhere --between=a,b
camera --data=dir --between=a
camera --data=dir --between=a,b --fraction=nan
camera --data=dir --between=a,b --fraction=2
camera --data=dir --between=a,b --output=file
convert
convert nosuch file
convert torchvision
convert torchvision nowhere.pth
convert torchvision file
convert first-order-model file
convert first-order-model file --config=file
convert first-order-model file --config=nowhere.yaml --to=d
convert first-order-model file --config=file --to=d
data
data stats
data nosuch dir
data stats nowhere
data check dir
data check run
data show file
report
report nowhere
report dir
report run
report run --output=file
reproduce nosuch
reproduce hpt-table1 --scale=huge
reproduce hpt-table1 more
demo --method=nosuch
bench
bench --config=nosuch
bench --config=psrnet:tiny --size=64
bench --config=psrnet:tiny --frames=-1
bench --config=psrnet:tiny --against=tensorflow
compile
compile --config=psrnet:tiny
compile --config=psrnet:tiny --topology=nosuch
app more
app --port=70000
""".strip().splitlines()


@pytest.fixture(scope="module")
def server():
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device" not in flag]
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, SERVER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        yield process
        process.stdin.close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "place" / "dir").mkdir(parents=True)
    for name in ("junk/notes.txt", "run/config.json", "file"):
        (tmp_path / "place" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "place" / name).write_text("nothing that is known\n")
    return tmp_path / "place"


@pytest.mark.slow
def test_a_hundred_mistakes_are_each_one_line_and_two_before_anything_is_compiled(server, folder):
    assert len(MISTAKES) >= 100
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    wrong = []
    for line in MISTAKES:
        request = {"arguments": shlex.split(line), "cwd": str(folder), "seconds": 100, "cheap": 1}
        request |= {name: str(folder.parent / name) for name in ("out", "err")}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        told = (folder.parent / "err").read_text().strip().splitlines()
        ours = [each for each in told if each.startswith("psrjax: ")]
        if code != 2 or len(ours) != 1 or ours[0] != told[-1] or "Traceback" in "\n".join(told):
            wrong.append(f"{line}: {code}: {told[-1] if told else ''}")
    print(f"{len(MISTAKES)} mistakes, {len(MISTAKES) - len(wrong)} of them one line and 2")
    assert not wrong, "\n".join(wrong)
    after = {path: path.stat().st_size for path in folder.rglob("*") if path.name != "lock"}
    assert after == before
