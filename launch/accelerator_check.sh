#!/usr/bin/env bash
# Checks and measures psrjax on this machine's accelerator, beside PyTorch; called again it goes on.
#
#   bash launch/accelerator_check.sh [FOLDER [MINUTES]]
#
# FOLDER (runs/accelerator) gets suite.json and suite.txt after every part. Exit code 1: a part failed,
# or is left for the next call. PYTHON=… names the interpreter; by default .venv's, else python3.
# Wheels in .whl are installed first, into a temporary folder, without a registry.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
folder=$(realpath -m "${1:-$root/runs/accelerator}")
minutes=${2:-8.75}
python=${PYTHON:-$root/.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python3

site=$root
if compgen -G "$root/.whl/*.whl" >/dev/null; then
    wheels=${TMPDIR:-/tmp}/psrjax-wheels-$UID
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$wheels" "$root"/.whl/*.whl
    site=$root:$wheels
fi
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
[[ ${JAX_PLATFORMS-} == cpu ]] || export JAX_PLATFORMS= # the accelerator, and the CPU beside it

# The published sizes, each at the paper's batch, but INTERnet's 16 clips are more than one GPU holds.
# Beside PyTorch without the frozen networks' term, which its references leave out (but INTERnet's).
console='from psrjax.cli.main import console; console()'
exec "$python" -c "$console" bench --suite="$folder" --minutes="$minutes" \
    "psrnet:bf16 --stage=layer1 --batch=3" \
    "hpt:bf16 --stage=transfer --batch=4" \
    "internet:bf16 --stage=joint --batch=2" \
    "d2gnet:bf16 --stage=joint --batch=2" \
    "mfci:bf16 --stage=joint --batch=2" \
    "'psrnet:bf16,w/o L_p' --stage=layer1 --batch=3 --against=torch" \
    "'hpt:bf16,w/o perceptual' --stage=transfer --batch=4 --against=torch" \
    "internet:bf16 --stage=joint --batch=2 --against=torch" \
    "'d2gnet:bf16,w/o perceptual' --stage=joint --batch=2 --against=torch" \
    "mfci:bf16 --stage=joint --batch=2 --against=torch
        --config.method.perceptual=off --config.weights.generator.perceptual=0."
