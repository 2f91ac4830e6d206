"""Shows a page in the browser, on this machine: make videos, watch trainings, prepare clips.

    psrjax app
    psrjax app --runs=DIR --port=8000

Open the address that it prints; Ctrl-C ends it. Nothing leaves this machine, and nobody else can
open the page unless --host says so. Uploads and results lie in the cache for a day: download what
you want to keep. Needs Gradio: pip install 'psrjax[app]'.
"""

from pathlib import Path

from absl import flags

from psrjax.errors import UserError

_RUNS = flags.DEFINE_string("runs", "runs", "the folder of the runs to choose from")
_DATA = flags.DEFINE_string("data", "data", "the folder for datasets that the page prepares")
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "the address to listen at; 0.0.0.0 lets everybody in the network in"
)
_PORT = flags.DEFINE_integer("port", 0, "the port; 0 is the first free one from 7860 on", 0, 65535)
_MAX_UPLOAD = flags.DEFINE_integer(
    "max_upload", 512, "MiB that a file given to the page may have", 1
)


def main(arguments: list[str]) -> None:
    """Shows the page until Ctrl-C."""
    if arguments:
        raise UserError(f"app: {arguments[0]!r} is no flag; runs are named with --runs=DIR")
    from psrjax.app import page  # Gradio, which --help does without

    page.serve(
        Path(_RUNS.value),
        Path(_DATA.value),
        host=_HOST.value,
        port=_PORT.value,
        max_upload=_MAX_UPLOAD.value,
        wait=True,
    )
