#!/usr/bin/env bash
# A recipe that outlives the login: its driver is a job of its own, which is queued again until all is done.
# Usage: recipes/slurm/submit.sh IMAGE OUTPUT
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
daskflow submit --cluster "$here/slurm/gpu.yaml" --walltime 1d --memory 4GB \
  "$here/infer_em.py" --cluster "$here/slurm/gpu.yaml" --image "$1" --output "$2"
