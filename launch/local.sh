#!/usr/bin/env bash
# Makes .venv, installs psrjax for the accelerator it finds, and runs: demo | test | any psrjax command.
#
#   bash launch/local.sh demo [--method=NAME] render, train, score and show, in runs/demo-NAME
#   bash launch/local.sh show                 videos of the trained models in docs/checkpoints, in show/
#   bash launch/local.sh test [pytest args]   ruff, pyright and the fast tests
#   bash launch/local.sh COMMAND …            any psrjax command; paths are relative to where you are
#
# PYTHON=/path/to/python              the interpreter to build .venv with (3.11 or newer)
# PSRJAX_ACCELERATOR=cpu|cuda|tpu     instead of what is found
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
python=$venv/bin/python
stamp=$venv/psrjax-installed
log=$venv/psrjax-install.log

fail() {
    echo "launch/local.sh: $*" >&2
    exit 2
}

usage() {
    echo "usage: bash launch/local.sh demo | show | test [pytest arguments] | COMMAND [psrjax arguments]"
    exit "${1:-0}"
}

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
            >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv and pip found (tried ${PYTHON:+$PYTHON, }python3.13," \
        "python3.12, python3.11, python3): install one (on Debian: python3-venv too)," \
        "or name it with PYTHON=/path/to/python"
}

find_accelerator() {
    if [[ -n ${PSRJAX_ACCELERATOR:-} ]]; then
        echo "$PSRJAX_ACCELERATOR"
    elif command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; then
        echo cuda
    elif compgen -G '/dev/accel*' >/dev/null || [[ -n ${TPU_NAME:-}${TPU_WORKER_ID:-} ]]; then
        echo tpu
    else
        echo cpu
    fi
}

# What the installation depends on: where it lies and what it was asked for.
fingerprint() {
    "$python" - "$root" <<'PYTHON'
import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
parts = [sys.argv[1].encode(), sys.version.encode()]
parts += [(root / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
print(hashlib.sha256(b"\0".join(parts)).hexdigest())
PYTHON
}

# A line that counts packages while pip works; silent where nobody watches.
show_progress() {
    local line count=0
    while IFS= read -r line; do
        echo "$line" >>"$log"
        if [[ -t 1 && $line == Collecting* ]]; then
            count=$((count + 1))
            printf '\r\033[Kinstalling: %3d packages found, %.40s' "$count" "${line#Collecting }"
        elif [[ -t 1 && $line == Installing* ]]; then
            printf '\r\033[Kinstalling: unpacking %d packages' "$count"
        fi
    done
    [[ -t 1 ]] && printf '\r\033[K'
    return 0
}

install() { # install EXTRA...: makes .venv where it is missing or broken, and fills it where stale
    if ! "$python" -c 'import pip' >/dev/null 2>&1; then
        local base
        base=$(find_python)
        echo "making .venv with $("$base" -V)"
        "$base" -m venv --clear "$venv" || fail "could not make $venv; see the lines above"
    fi
    local extra missing="" print have="" extras
    print=$(fingerprint)
    if [[ -f $stamp && $(head -n 1 "$stamp") == "$print" ]]; then
        have=$(sed -n 2p "$stamp") # such as " base cuda test"
    fi
    for extra in base "$@"; do
        [[ "$have " == *" $extra "* ]] || missing+=" $extra"
    done
    [[ -n $missing ]] || return 0
    have+=$missing
    extras=$(echo ${have# base} | tr ' ' ,)
    echo "installing psrjax${extras:+[$extras]} into .venv (minutes the first time; log: .venv/${log##*/})"
    : >"$log"
    local started=$SECONDS
    if ! "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        --constraint "$root/constraints.txt" --editable "$root${extras:+[$extras]}" 2>&1 |
        show_progress; then
        tail -n 15 "$log" >&2
        fail "pip could not install psrjax; the whole log is $log"
    fi
    printf '%s\n' "$print" "$have" >"$stamp.tmp"
    mv "$stamp.tmp" "$stamp"
    echo "installed in $((SECONDS - started)) s"
}

run_tests() {
    cd "$root"
    # The fast tests are CPU tests, also beside an accelerator: several workers cannot share one.
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
    "$python" -m ruff check .
    "$python" -m ruff format --check .
    "$python" -m pyright --pythonpath "$python"
    # The tests of a file share fixtures and compiled programs: one worker has them all.
    exec "$python" -m pytest -q -n 2 --dist=loadfile "$@"
}

# Runs the command of every model card: the `psrjax` lines of its last fenced block. Most of the time
# is compilation, which mostly keeps one core busy: two at a time on CPUs, one on an accelerator; and on
# CPUs compiled with less effort, which programs that run for seconds never win back.
show_checkpoints() {
    local card at_once=1
    if [[ $accelerator == cpu ]]; then
        at_once=2
        export XLA_FLAGS="--xla_backend_optimization_level=1 ${XLA_FLAGS:-}" # of two, the last holds
    fi
    cd "$root" # the cards name files of the checkout
    compgen -G 'docs/checkpoints/*.safetensors' >/dev/null ||
        fail "docs/checkpoints holds no trained model yet: export one with psrjax export RUN" \
            "docs/checkpoints/NAME.safetensors --card"
    for card in docs/checkpoints/*.md; do
        [[ ! -f ${card%.md}.safetensors ]] || sed -n '/^## Show/,$p' "$card" | sed -n 's/^psrjax //p'
    done | xargs -P "$at_once" -L 1 bash -c 'echo "psrjax $*"; exec "$0" "$@" --overwrite' \
        "$venv/bin/psrjax"
}

command=${1:-}
[[ -n $command ]] || usage 2
shift
accelerator=$(find_accelerator)
case $accelerator in
cpu) extras=(all) ;;
cuda | tpu) extras=(all "$accelerator") ;;
*) fail "PSRJAX_ACCELERATOR=$accelerator: it is cpu, cuda or tpu" ;;
esac

case $command in
-h | --help | help)
    usage
    ;;
test)
    install all docs test
    run_tests "$@"
    ;;
demo)
    install "${extras[@]}"
    cd "$root" # so that runs/ lies in the checkout, wherever this was called from
    exec "$venv/bin/psrjax" demo "$@"
    ;;
show)
    install "${extras[@]}"
    show_checkpoints
    ;;
*)
    install "${extras[@]}"
    exec "$venv/bin/psrjax" "$command" "$@"
    ;;
esac
