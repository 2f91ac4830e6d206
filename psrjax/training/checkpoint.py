"""Checkpoints of a stage: written whole, resumed bit for bit, read for inference or other runs."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from flax import traverse_util
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from psrjax import config as config_lib
from psrjax import io
from psrjax.config import RunConfig
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.methods import base
from psrjax.methods.base import Method
from psrjax.ops import conv
from psrjax.runtime import cluster
from psrjax.training import checksums, exported_run
from psrjax.training.state import TrainState, copy_nets

FOLDER = "checkpoints"  # in the directory of a stage
_REMOVED = "removed"  # in that; on a bucket checkpoints are removed in place
CONFIG = "config.json"  # in the run directory
HISTORY = "config_history.jsonl"  # beside it: what was changed in it, and when
_SCORE, _LOSS = "score", "loss"  # among the metrics that orbax saves with a checkpoint
_JUMP = 10.0  # a loss that exceeds the least one by so many times its size has jumped
_CHECKSUMS, _CONFIG_CHECKSUM = "checksums", "config_checksum"  # beside the data's position
FREE_FIELDS = ("dtype", "remat")  # of the method: how it computes, not what


class Checkpoints:
    """The checkpoints of one stage: the newest, the one of least loss, the last before a jump.

    Where `config.keep_best` asks for it the best by that metric is kept too.
    """

    def __init__(self, directory: str | os.PathLike[str], config: RunConfig):
        """Opens or makes `<directory>/checkpoints`, and clears what was half-written.

        Args:
          directory: of the stage.
          config: of the stage; saved with every checkpoint and compared on resume.

        Raises:
          UserError: for a bucket where Google's client for it is not installed.
        """
        self.folder = absolute(directory) / FOLDER
        self._config = config
        policies: list[preservation_policy.PreservationPolicy] = [
            preservation_policy.LatestN(config.keep_checkpoints),
            _Sound(),
        ]
        if config.keep_best:
            policies.append(
                preservation_policy.BestN(
                    get_metric_fn=lambda metrics: metrics.get(_SCORE, -math.inf),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            best_fn=lambda metrics: -metrics.get(_LOSS, math.inf),  # else it saves none
            cleanup_tmp_directories=True,
            todelete_subdir=_REMOVED,
            # On a CPU the arrays to be written in the background are views of the very
            # buffers that the next step is given to overwrite.
            enable_async_checkpointing=jax.default_backend() != "cpu",
        )
        if jax.process_index() == 0:
            _forget_damaged_metrics(self.folder)
        self._remove_old()
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except ImportError as error:  # orbax asks what kind of bucket it is
            raise UserError(f"{self.folder}: pip install 'psrjax[gcs]' ({error})") from error

    def latest_step(self) -> int:
        """Returns the step of the newest checkpoint; 0 where there is none."""
        return self._manager.latest_step() or 0

    def save(
        self,
        step: int,
        state: TrainState,
        position: Mapping[str, Any],
        *,
        loss: float = math.inf,
        score: float | None = None,
    ) -> None:
        """Saves a state, unless this step is saved already.

        Args:
          step: the number of steps taken.
          state: it must be finite; the caller has looked.
          position: of the data, as its iterator gives it; a record and a cross-check.
          loss: of the step, by which the last checkpoints before a jump of it are kept.
          score: by which the best is kept, the higher the better; None where nobody has scored it.
        """
        if step == self._manager.latest_step():
            return
        if position["next_index"] != step:
            raise RuntimeError(f"the data stands at {dict(position)}, the state at step {step}")
        self._manager.wait_until_finished()  # as saving does by itself
        self._remove_old()
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(
                    {
                        **position,
                        _CHECKSUMS: checksums.of_state(state),
                        _CONFIG_CHECKSUM: io.checksum(self._config.to_dict()),
                    }
                ),
                config=ocp.args.JsonSave(self._config.to_dict()),
            ),
            metrics={_LOSS: loss} | ({} if score is None else {_SCORE: float(score)}),
            force=True,
        )

    def restore(self, abstract: TrainState) -> TrainState | None:
        """Returns the newest state that can be read, or None where none was ever saved.

        Damaged checkpoints newer than it are removed, with a warning: the run makes them again.

        Args:
          abstract: shapes, types and this run's shardings.

        Raises:
          UserError: if the run was another method's or had another batch, or nothing can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        errors = {}
        for step in steps:
            try:
                saved = _read_config(self.folder / str(step))
                compare_configs(saved, self._config, self.folder.parent)
                args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
                state = self._manager.restore(step, args=args)["state"]
                found = _changed(self.folder / str(step), state)
                _require_same([name for each in cluster.gather(found) for name in each or ()])
            except UserError:
                raise
            except Exception as error:  # orbax and its libraries raise anything of damaged files
                _warn_damaged(self.folder / str(step), error)
                errors[step] = error
                continue
            if errors:
                logging.warning("%s: the run goes on from step %d", self.folder, step)
            self._remove(errors)
            return state
        if steps:
            first = _shorten(errors[steps[0]])
            raise UserError(f"{self.folder}: none of its checkpoints can be read ({first})")
        return None

    def reached_preemption(self, step: int) -> bool:
        """Returns True, in every process alike, if the machine is about to be taken away."""
        return self._manager.reached_preemption(step)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.wait_until_finished()
        self._manager.close()
        self._remove_old()

    def _remove_old(self) -> None:
        """Removes checkpoints that are no longer kept; orbax has moved them away.

        A removal that is cut off then leaves no half checkpoint among the whole ones.
        """
        if jax.process_index() == 0 and (self.folder / _REMOVED).exists():
            (self.folder / _REMOVED).rmtree()

    def _remove(self, steps: Mapping[int, Any]) -> None:
        if not steps:
            return
        if jax.process_index() == 0:
            for step in steps:
                (self.folder / str(step)).rmtree()
        ocp.utils.sync_global_processes("psrjax:remove_damaged")
        self._manager.reload()


@contextlib.contextmanager
def explain_full_disks(folder: os.PathLike[str]) -> Iterator[None]:
    """Turns "no space left", however deep orbax wraps it, into a UserError that names `folder`."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise UserError(
            f"{folder}: the disk is full; what was saved before is whole: make room and start the "
            "same command again"
        ) from error


def is_full_disk(error: BaseException) -> bool:
    """Returns True if an error, or one that it came from, says that there is no room to write."""
    seen: list[BaseException] = []
    todo = [error]
    while todo:
        current = todo.pop()
        if current in seen:
            continue
        seen.append(current)
        if getattr(current, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(current) for text in ("No space left", "Disk quota exceeded")):
            return True
        todo += [e for e in (current.__cause__, current.__context__) if e is not None]
        todo += getattr(current, "exceptions", ())
    return False


def absolute(path: str | os.PathLike[str]) -> epath.Path:
    """Returns the absolute path, local or gs://. Raises UserError for other addresses."""
    return io.absolute(path)


def compare_configs(old: RunConfig, new: RunConfig, where: Any) -> None:
    """Compares the config of a saved run with this run's; differences that may be are logged.

    Raises:
      UserError: if the method, a field of it that changes what it computes, or the batch differ.
    """
    for key, (before, after) in config_lib.differences(old, new).items():
        method = key.startswith("method.") and key.removeprefix("method.") not in FREE_FIELDS
        if method or key == "batch":
            raise UserError(
                f"{where}: was trained with {key}={before!r}, this config says {after!r}: give "
                "another --workdir, or the config of that run"
            )
        logging.info("%s: %s was %r, is now %r", where, key, before, after)


def load_variables(
    directory: str | os.PathLike[str], sharding: Sharding | None = None, *, best: bool = False
) -> dict[str, Any]:
    """Reads the arrays for inference from a stage's newest readable checkpoint, or its best one.

    Args:
      directory: of the stage.
      sharding: of every array; by default it lies on this process's first device.
      best: whether to take the one with the highest score of `config.keep_best`.

    Returns:
      {"variables": {"params": (averaged where the run kept averages), collection: …},
       "config": the stage's config, "step": int}.

    Raises:
      UserError: if there is no checkpoint, none that can be read, or none that was scored.
    """
    folder = absolute(directory) / FOLDER
    steps = saved_steps(directory)
    steps = [_best_step(directory)] if best and steps else steps
    sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
    for step in steps:
        try:
            config = _read_config(folder / str(step))
            state = _read_arrays(folder / str(step) / "state", sharding)
            _require_same(_changed(folder / str(step), state) or [])
        except Exception as error:  # as in `restore`
            _warn_damaged(folder / str(step), error)
            continue
        variables = {"params": {**state["params"], **state["ema"]}, **state["stats"]}
        return {"variables": variables, "config": config, "step": step}
    what = "none of its checkpoints can be read" if steps else "has no checkpoint"
    raise UserError(f"{absolute(directory)}: {what}")


def saved_steps(directory: str | os.PathLike[str]) -> list[int]:
    """Lists the steps of a stage's checkpoints, the newest first."""
    folder = absolute(directory) / FOLDER
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def _best_step(directory: str | os.PathLike[str]) -> int:
    folder = absolute(directory) / FOLDER
    files = {step: folder / str(step) / "metrics" / "metrics" for step in saved_steps(directory)}
    read = {step: io.read_json(file) for step, file in files.items() if file.exists()}
    scores = {step: metrics[_SCORE] for step, metrics in read.items() if _SCORE in metrics}
    if not scores:
        raise UserError(
            f"{absolute(directory)}: no checkpoint was scored: train with config.keep_best=psnr "
            "and a config.data.validation_split, or take the newest checkpoint"
        )
    return max(scores, key=lambda step: scores[step])


def find_stage(workdir: str | os.PathLike[str], stage: str | None = None) -> str:
    """Chooses the stage of a run: the last finished one, else the last with any checkpoint.

    The file of an exported run holds one stage.

    Raises:
      UserError: if the directory or file is not a run's, or the stage is not of it or has no
        checkpoint.
    """
    if exported_run.is_file(workdir):
        return _read_exported(workdir, stage)[2].method.stage
    root = absolute(workdir)
    config = read_run_config(root)
    if stage:
        if stage not in config.stages:
            raise UserError(f"{root}: no stage {stage!r}; there are {', '.join(config.stages)}")
        return stage
    begun = [name for name in config.stages if saved_steps(root / name)]
    if not begun:
        raise UserError(f"{root}: no stage of it has a checkpoint yet; `psrjax train` makes them")
    finished = [
        name
        for name in begun
        if saved_steps(root / name)[0] >= config_lib.stage_config(config, name).steps
    ]
    return (finished or begun)[-1]


def read_run_config(workdir: str | os.PathLike[str]) -> RunConfig:
    """Reads the config of a run directory. Raises UserError if it is not one."""
    root = absolute(workdir)
    if not (root / CONFIG).exists():
        raise UserError(f"{root}: not the directory of a run (it has no {CONFIG})")
    with foreign.parsing(root / CONFIG, "not whole, or not the config of a run"):
        return config_lib.from_json(json.dumps(io.read_json(root / CONFIG)))


def write_run_config(workdir: str | os.PathLike[str], config: RunConfig) -> None:
    """Writes the config of a run; what changes in it is kept, a line each time, in `HISTORY`.

    A line is {"stage": the last one begun, "step": its last checkpoint, "changed": {key: [before,
    after]}}.
    """
    root = absolute(workdir)
    changed = {}
    if (root / CONFIG).exists():
        changed = config_lib.differences(read_run_config(root), config)
    if changed:
        begun = [name for name in config.stages if saved_steps(root / name)]
        stage = (begun or config.stages)[-1]
        step = max(saved_steps(root / stage), default=0)
        before = (root / HISTORY).read_text() if (root / HISTORY).exists() else ""
        line = json.dumps({"stage": stage, "step": step, "changed": changed})
        io.write_text(root / HISTORY, f"{before}{line}\n")
    io.write_text(root / CONFIG, config_lib.to_json(config) + "\n")


def restore_for_inference(
    workdir: str | os.PathLike[str], stage: str | None = None, *, best: bool = False
) -> tuple[Method, dict[str, Any], RunConfig, str]:
    """Loads (method, variables, stage's config, stage) of a run, or of an exported one's file.

    The variables are the averaged ones where the run kept averages. Without `stage` it is the last
    finished one, or the last with a checkpoint where none is finished; `best` is that of
    `load_variables`.

    Raises:
      UserError: if the directory is not a run's, or holds no checkpoint that can be read.
    """
    if exported_run.is_file(workdir):
        if best:
            raise UserError(f"{workdir}: holds one checkpoint, as exported")
        method, variables, config = _read_exported(workdir, stage)
        conv.use(config.conv)
        return method, variables, config, config.method.stage
    name = find_stage(workdir, stage)
    found = load_variables(absolute(workdir) / name, best=best)
    config = found["config"]
    conv.use(config.conv)
    method = base.build(**config_lib.method_fields(config))
    logging.info("%s: stage %s at step %d", absolute(workdir), name, found["step"])
    return method, found["variables"], config, name


def _read_exported(
    file: str | os.PathLike[str], stage: str | None
) -> tuple[Method, dict[str, Any], RunConfig]:
    found = exported_run.read(file)
    if stage and stage != (held := found[2].method.stage):
        raise UserError(f"{file}: holds stage {held!r} alone, as exported")
    return found


def load_origin(
    run: str | os.PathLike[str], stage: str, sharding: Sharding
) -> tuple[dict[str, Any], str]:
    """Loads the variables that another run gives to start from, and where they are, for messages.

    Args:
      run: its directory, or the file of an exported one.
      stage: of it; by default as `find_stage` chooses.
      sharding: of every array.

    Raises:
      UserError: as `find_stage` and `load_variables`.
    """
    if exported_run.is_file(run):
        return _read_exported(run, stage)[1], os.fspath(run)
    origin = absolute(run) / find_stage(run, stage)
    return load_variables(origin, sharding)["variables"], os.fspath(origin)


def start_from(
    state: TrainState, variables: Mapping[str, Any], nets: tuple[str, ...], where: Any
) -> TrainState:
    """Returns a fresh state with every collection of `nets` as in `variables`, placed as it was.

    Args:
      state: fresh.
      variables: of another run or stage.
      nets: the nets to copy; () is all that both have.
      where: the other run's directory, for messages.

    Raises:
      UserError: if a net is missing on either side, or has other shapes there.
    """
    common = [net for net in state.params if net in variables["params"]]
    for net in nets or common:
        if net not in common:
            raise UserError(
                f"config.init.nets: {net!r} is not in both runs; {where} and this one share "
                f"{', '.join(common) or 'no net'}"
            )
        _check_shapes(state.params[net], variables["params"][net], net, where)
    logging.info("%s gives the nets %s", where, ", ".join(nets or common) or "none")
    return copy_nets(state, variables, nets or common)


def _check_shapes(here: Any, there: Any, net: str, where: Any) -> None:
    old: dict[str, Any] = traverse_util.flatten_dict(there, sep="/")
    new: dict[str, Any] = traverse_util.flatten_dict(here, sep="/")
    old, new = ({name: leaf.shape for name, leaf in each.items()} for each in (old, new))
    for name in sorted(set(old) | set(new)):
        if old.get(name) != new.get(name):
            raise UserError(
                f"net {net!r} of {where} does not fit: {name} is {old.get(name)} there and "
                f"{new.get(name)} here; use the same method fields"
            )


def _forget_damaged_metrics(folder: epath.Path) -> None:
    """Empties files of metrics that orbax could not read, which would end the run."""
    for step in saved_steps(folder.parent):
        file = folder / str(step) / "metrics" / "metrics"
        try:
            whole = not file.exists() or isinstance(json.loads(file.read_text()), dict)
        except ValueError:
            whole = False
        if not whole:
            logging.warning("%s: damaged; the loss of this checkpoint is not known", file)
            io.write_json(file, {})


class _Sound(preservation_policy.PreservationPolicy):
    """Keeps the checkpoint of least loss, and the last one before the loss jumped."""

    def should_preserve(
        self,
        checkpoints: Sequence[preservation_policy.PolicyCheckpointInfo],
        *,
        context: preservation_policy.PreservationContext,
    ) -> Sequence[bool]:
        """Returns, for checkpoints from the oldest to the newest, whether each is kept."""
        del context
        losses = [(each.metrics or {}).get(_LOSS, math.inf) for each in checkpoints]
        least = min(losses, default=math.inf)
        sound = [loss - least <= _JUMP * max(1.0, abs(least)) for loss in losses]
        kept = {losses.index(least)} if math.isfinite(least) else set()
        if True in sound:
            kept.add(len(sound) - 1 - sound[::-1].index(True))
        return [place in kept for place in range(len(losses))]


def rewind(directory: str | os.PathLike[str], step: int) -> None:
    """Removes a stage's checkpoints after `step`, so that training goes on from there.

    Raises:
      UserError: if that step has no checkpoint.
    """
    steps = saved_steps(directory)
    if step not in steps:
        raise UserError(
            f"{absolute(directory)}: no checkpoint of step {step}; there are "
            f"{', '.join(map(str, sorted(steps))) or 'none'}"
        )
    for later in steps:
        if later > step:
            (absolute(directory) / FOLDER / str(later)).rmtree()
            logging.info("%s: the checkpoint of step %d is removed", absolute(directory), later)


def check(workdir: str | os.PathLike[str]) -> list[str]:
    """Reads every checkpoint of a run and lists what is wrong, a line each.

    Raises:
      UserError: if the directory is not a run's.
    """
    root, wrong = absolute(workdir), []
    sharding = SingleDeviceSharding(jax.local_devices()[0])
    for stage in read_run_config(root).stages:
        for step in saved_steps(root / stage):
            folder = root / stage / FOLDER / str(step)
            try:
                _read_config(folder)
                state = _read_arrays(folder / "state", sharding, nets_only=False)
                changed = _changed(folder, state)
                _require_same(changed or [])
                if changed is None:
                    wrong.append(f"{folder}: without checksums, of an older version; it is read")
            except Exception as error:  # as in `restore`
                wrong.append(f"{folder}: {_shorten(error)}")
    return wrong


def _changed(folder: epath.Path, state: Any) -> list[str] | None:
    """Names the arrays, of a state or a part of one, that changed; None without checksums."""
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        saved = reader.restore(folder / "data")
    return checksums.changed(state, saved[_CHECKSUMS]) if _CHECKSUMS in saved else None


def _require_same(changed: Sequence[str]) -> None:
    if changed:
        raise ValueError(f"{changed[0]} is not as it was saved: bits of its file changed")


def _warn_damaged(folder: epath.Path, error: Exception) -> None:
    logging.warning(
        "checkpoint %s cannot be read, trying the one before: %s", folder, _shorten(error)
    )


def _shorten(error: Exception) -> str:
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return (kind + " ".join(str(error).split()))[:200]


def _read_config(folder: epath.Path) -> RunConfig:
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        saved, data = reader.restore(folder / "config"), reader.restore(folder / "data")
    if _CONFIG_CHECKSUM in data and data[_CONFIG_CHECKSUM] != io.checksum(saved):
        raise ValueError("its config is not as it was saved: its bits changed")
    return config_lib.from_json(json.dumps(saved))


def _read_arrays(
    folder: epath.Path, sharding: Sharding, *, nets_only: bool = True
) -> dict[str, Any]:
    saved = ocp.PyTreeCheckpointHandler().metadata(folder).tree
    names = ("params", "stats", "ema") if nets_only else tuple(saved)
    wanted = {
        name: jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            saved.get(name) or {},
        )
        for name in names
    }
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(
            folder,
            args=ocp.args.PyTreeRestore(
                item=wanted,
                restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
                partial_restore=True,
            ),
        )
