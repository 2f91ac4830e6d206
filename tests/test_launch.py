"""local.sh on other machines: a stand-in Python records how it is called; examples can start."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from psrjax import config as config_lib
from psrjax.cli._config import literal
from psrjax.training import sharding

ROOT = Path(__file__).parents[1]
TOOLS = (
    "bash cat chmod cp date dirname env grep head mkdir mv printf sed sh tail tr wc xargs".split()
)

# Answers as `python` would, and writes down how pip was called.
STAND_IN = """#!/bin/sh
case "$1" in
-c) exit 0 ;;
-V) echo "Python 3.12.0" ;;
-) exec "@REAL@" "$@" ;;
-m)
    case "$2" in
    venv)
        mkdir -p "$4/bin"
        cp "$0" "$4/bin/python"
        printf '#!/bin/sh\\necho "psrjax in $PWD: $*"\\necho "XLA: $XLA_FLAGS"\\n' >"$4/bin/psrjax"
        chmod +x "$4/bin/psrjax"
        ;;
    pip) echo "$*" >>"@LOG@"; echo "Collecting jax"; exit ${PIP_STATUS:-0} ;;
    *) echo "$*" ;;
    esac
    ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Machine:
    """A checkout whose path has spaces, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path):
        self.log = folder / "pip.log"
        self.bin = folder / "bin"
        self.checkout = folder / "a check out"
        self.elsewhere = folder / "elsewhere"
        for path in (self.bin, self.elsewhere, self.checkout / "launch"):
            path.mkdir(parents=True)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        shutil.copy(ROOT / "launch/local.sh", self.checkout / "launch")
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.checkout)

    def give(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def give_python(self, name: str = "python3.12") -> None:
        text = STAND_IN.replace("@REAL@", sys.executable).replace("@LOG@", str(self.log))
        self.give(name, text)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", str(self.checkout / "launch/local.sh"), *arguments],
            cwd=self.elsewhere,
            env={"PATH": str(self.bin), "HOME": str(self.elsewhere), **environment},
            capture_output=True,
            text=True,
        )

    def installs(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def test_without_a_python_it_says_which_it_looked_for(machine):
    done = machine.run("demo")
    assert done.returncode == 2
    assert "no Python 3.11 or newer" in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_it_installs_once_with_the_pins_and_runs_where_the_user_is(machine):
    machine.give_python()
    first = machine.run("train", "--config=psrnet:tiny", "--workdir=my runs")
    assert first.returncode == 0, first.stderr
    assert f"psrjax in {machine.elsewhere}: train --config=psrnet:tiny" in first.stdout
    (install,) = machine.installs()
    assert f"--constraint {machine.checkout}/constraints.txt" in install
    assert install.endswith(f"--editable {machine.checkout}[all]")
    machine.run("doctor")
    assert len(machine.installs()) == 1


def test_demo_runs_in_the_checkout(machine):
    machine.give_python()
    done = machine.run("demo", "--workdir=runs/b")
    assert f"psrjax in {machine.checkout}: demo --workdir=runs/b" in done.stdout


def test_show_runs_the_commands_of_the_cards_whose_models_are_there(machine):
    machine.give_python()
    checkpoints = machine.checkout / "docs" / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert "holds no trained model yet" in machine.run("show").stderr
    for name in ("one", "two", "lost"):
        command = f"psrjax synthesize --run=docs/checkpoints/{name}.safetensors"
        text = f"```bash\npsrjax train\n```\n\n## Show\n\n```bash\n{command}\n```\n"
        (checkpoints / f"{name}.md").write_text(text)
    for name in ("one", "two"):
        (checkpoints / f"{name}.safetensors").touch()
    done = machine.run("show")
    assert done.returncode == 0, done.stderr
    made = [line for line in done.stdout.splitlines() if line.startswith("psrjax in")]
    begin = f"psrjax in {machine.checkout}: synthesize --run=docs/checkpoints/"
    assert sorted(made) == [f"{begin}{name}.safetensors --overwrite" for name in ("one", "two")]


@pytest.mark.parametrize(
    ("accelerator", "flags"),
    [("cpu", "--xla_backend_optimization_level=1 --xla_mine=2"), ("cuda", "--xla_mine=2")],
)
def test_show_compiles_quickly_on_cpus_and_keeps_the_users_flags(machine, accelerator, flags):
    machine.give_python()
    checkpoints = machine.checkout / "docs" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "one.md").write_text("## Show\n\n```bash\npsrjax synthesize\n```\n")
    (checkpoints / "one.safetensors").touch()
    done = machine.run("show", PSRJAX_ACCELERATOR=accelerator, XLA_FLAGS="--xla_mine=2")
    assert f"XLA: {flags}\n" in done.stdout
    done = machine.run("doctor", PSRJAX_ACCELERATOR=accelerator, XLA_FLAGS="--xla_mine=2")
    assert "XLA: --xla_mine=2\n" in done.stdout


def test_changed_pins_install_again_and_extras_are_kept(machine):
    machine.give_python()
    machine.run("test")
    machine.run("doctor")
    assert len(machine.installs()) == 1
    with open(machine.checkout / "constraints.txt", "a") as pins:
        pins.write("# newer\n")
    machine.run("doctor")
    machine.run("test")
    assert [line.rsplit("out", 1)[1] for line in machine.installs()] == [
        *("[all,docs,test]", "[all]", "[all,docs,test]")
    ]


@pytest.mark.parametrize(
    ("environment", "extra"),
    [
        ({}, "[all,cuda]"),
        ({"PSRJAX_ACCELERATOR": "cpu"}, "[all]"),
        ({"PSRJAX_ACCELERATOR": "tpu"}, "[all,tpu]"),
    ],
)
def test_the_accelerator_that_is_found_or_named_is_installed_for(machine, environment, extra):
    machine.give_python()
    machine.give("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    machine.run("doctor", **environment)
    assert machine.installs()[0].endswith(f"out{extra}")


def test_an_unknown_accelerator_is_refused(machine):
    machine.give_python()
    done = machine.run("doctor", PSRJAX_ACCELERATOR="abacus")
    assert done.returncode == 2 and "abacus: it is cpu, cuda or tpu" in done.stderr


def test_a_failed_installation_shows_why_and_is_tried_again(machine):
    machine.give_python()
    done = machine.run("doctor", PIP_STATUS="1")
    assert done.returncode == 2
    assert "Collecting jax" in done.stderr and "pip could not install psrjax" in done.stderr
    assert machine.run("doctor").returncode == 0
    assert len(machine.installs()) == 2


def test_no_command_shows_the_usage(machine):
    done = machine.run()
    assert done.returncode == 2 and done.stdout.startswith("usage:")


@pytest.mark.parametrize("name", ["local.sh", "tpu_pod.sh", "slurm.sbatch", "accelerator_check.sh"])
def test_start_scripts_are_whole(name):
    assert subprocess.run(["bash", "-n", str(ROOT / "launch" / name)]).returncode == 0


def test_start_scripts_without_arguments_say_how(tmp_path):
    environment = {"PATH": os.environ["PATH"], "TPU": "a", "ZONE": "b", "REPOSITORY": "c"}
    for name in ("tpu_pod.sh", "slurm.sbatch"):
        done = subprocess.run(
            ["bash", str(ROOT / "launch" / name)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.startswith("usage:"), name


def test_the_cluster_file_holds_one_job_of_as_many_pods_as_hosts():
    jobs = yaml.safe_load((ROOT / "launch/gke.yaml").read_text())
    job = jobs["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    chips = [int(n) for n in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")]
    per_host = pod["containers"][0]["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == chips[0] * chips[1] // per_host


def words(text):
    """The words of the training command in a comment of a script."""
    lines = re.search(r"^#.*\btrain (?:.*\\\n#)*.*$", text, re.MULTILINE)[0]
    return shlex.split(re.sub(r"\\\n#", " ", lines).lstrip("# "))


def tpu_pod():
    text = (ROOT / "launch/tpu_pod.sh").read_text()
    return words(text), int(re.search(r"v5litepod-(\d+)", text)[1])


def slurm():
    text = (ROOT / "launch/slurm.sbatch").read_text()
    (nodes,) = re.findall(r"--nodes=(\d+)", text)
    (tasks,), (gpus,) = (
        re.findall(rf"^#SBATCH --{name}-per-node=(\d+)", text, re.MULTILINE)
        for name in ("ntasks", "gpus")
    )
    assert tasks == gpus  # one process for each
    return words(text), int(nodes) * int(gpus)


def gke():
    job = yaml.safe_load((ROOT / "launch/gke.yaml").read_text())
    pod = job["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    chips = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    return pod["containers"][0]["command"], math.prod(map(int, chips))


@pytest.mark.parametrize("example", [tpu_pod, slurm, gke])
def test_the_devices_of_an_example_can_share_the_batch_of_its_command(example):
    command, devices = example()
    flags = dict(re.findall(r"--([\w.]+)=(\S+)", " ".join(command)))
    overrides = {
        key.removeprefix("config."): literal(value)
        for key, value in flags.items()
        if key.startswith("config.")
    }
    config = config_lib.load(flags["config"], overrides)
    assert devices == 16
    for stage in config.stages:
        own = sharding.for_devices(config_lib.stage_config(config, stage), devices)
        assert own.batch % devices == 0
    assert flags["workdir"] and flags["config.data.path"]


def test_the_pins_are_exact_and_name_no_registry():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins and all("==" in pin and "/" not in pin and "@" not in pin for pin in pins)
