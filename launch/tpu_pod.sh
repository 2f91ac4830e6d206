#!/usr/bin/env bash
# Runs one psrjax command on every worker of a TPU slice, over gcloud. Not run here: see launch/README.md.
#
#   TPU=my-pod ZONE=europe-west4-a REPOSITORY=https://… bash launch/tpu_pod.sh \
#       train --config=psrnet:bf16 --config.batch_per_device=3 \
#       --config.data.path=gs://bucket/data --workdir=gs://bucket/runs/a
#
# my-pod: a slice of any size, such as v5litepod-16 (16 chips, 4 hosts), that `gcloud` has made.
#
# REF=branch-or-commit picks what is checked out (default: main). All workers run the same command;
# `psrjax` finds the others by itself. The run directory and the data lie on a bucket, so that every
# worker reads them and the checkpoint is whole whichever worker is lost. Killed or preempted: start the
# same line again, it resumes.
set -euo pipefail

: "${TPU:?name of the TPU VM or queued resource}" "${ZONE:?its zone}" "${REPOSITORY:?git address}"
[[ $# -gt 0 ]] || { echo "usage: TPU=… ZONE=… REPOSITORY=… $0 COMMAND [arguments]" >&2; exit 2; }

arguments=$(printf ' %q' "$@")
repository=$(printf '%q' "$REPOSITORY")
ref=$(printf '%q' "${REF:-main}")

# The folder is kept between calls, and so is its .venv: the second start takes seconds.
remote="set -e
test -d psrjax || git clone --quiet $repository psrjax
cd psrjax
git fetch --quiet origin $ref
git checkout --quiet --detach FETCH_HEAD
PSRJAX_ACCELERATOR=tpu bash launch/local.sh$arguments"

exec gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$remote"
