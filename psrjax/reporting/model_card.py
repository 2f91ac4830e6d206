"""The model card of an exported run: a page that says what it is and what it cannot do."""

import os
from pathlib import Path

from etils import epath

from psrjax import io
from psrjax.config import RunConfig
from psrjax.evaluation import score_export
from psrjax.inference import transfer
from psrjax.reporting import run_summary
from psrjax.runtime import run_record
from psrjax.training import checkpoint, exported_run

_PAGE = """# {name}

| | |
|---|---|
| system | {method}, stage {stage} |
| frames | {height}x{width} |
| file | {megabytes:.1f} MB, half precision |
| steps | {steps}; batch {batch}, seed {seed}{ema} |
| data | FILL IN: which footage, and how much of it |
| licence of the footage | FILL IN |
| cost | {cost} |
| command | `{trained_by}` |

FILL IN: what it shows, and what it cannot do.

## Scores

{scores}
## Show

```bash
{command}
```
"""
_RUN = "psrjax synthesize --run={file} --output=show/{name}.webp"
_VIEW = _RUN + " --data={folder}/1"
_TRANSFER = _RUN + " --source={folder}/1 --driving={folder}/2"


def write(file: Path, config: RunConfig, run: str | os.PathLike[str]) -> Path:
    """Writes the card of an exported file beside it, unless there is one.

    Args:
      file: "NAME.safetensors".
      config: of the exported stage.
      run: the run's directory; its cost and the table of its last evaluation are taken over.

    Returns:
      The path of the card.

    Raises:
      UserError: if it cannot be written.
    """
    card, results = file.with_suffix(".md"), Path(run) / score_export.RESULTS
    if card.exists():
        return card
    record = run_summary.read_optional(epath.Path(run) / run_record.FILE, {})
    height, width = transfer.frame_size(config)
    show = _VIEW if config.data.sampling.source == "same_time" else _TRANSFER
    page = _PAGE.format(
        name=file.stem,
        method=config.method.name,
        stage=config.method.stage,
        height=height,
        width=width,
        megabytes=file.stat().st_size / 1e6,
        steps=_steps(config, run),
        batch=config.batch,
        seed=config.seed,
        ema=f", averaged with decay {config.ema}" if config.ema else "",
        cost=run_record.cost(record) if record else "FILL IN: minutes, machine, commit",
        trained_by=record.get("command", "FILL IN"),
        scores=score_export.markdown(io.read_json(results)) if results.exists() else "FILL IN\n",
        command=show.format(file=file, name=file.stem, folder=file.with_suffix("")),
    )
    io.write_text(card, page)
    return card


def _steps(config: RunConfig, run: str | os.PathLike[str]) -> str:
    if exported_run.is_file(run):  # which knows of no other stage
        return f"{config.method.stage} {config.steps}"
    return run_summary.steps(checkpoint.read_run_config(run))
