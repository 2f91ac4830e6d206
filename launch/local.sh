#!/usr/bin/env bash
# Makes .venv, installs psrjax for the accelerator it finds, and runs: demo | test | any psrjax command.
set -euo pipefail
cd "$(dirname "$0")/.."
echo "being built"
