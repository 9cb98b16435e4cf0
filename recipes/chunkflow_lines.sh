#!/usr/bin/env bash
# The line of a lab that runs chunkflow in production, and what takes its place. Usage: chunkflow_lines.sh IMAGE OUT
#
#   setup-env, fetch-task-from-sqs, load-precomputed, normalize-section-contrast, inference, crop-margin, save-precomputed,
#   delete-task-in-queue: here the volume is one lazy array, its blocks are the tasks, and the job's directory is the queue.
set -euo pipefail
image=$1 out=$2 here=$(dirname "$0")
run=(daskflow ${CLUSTER:+--cluster "$CLUSTER"})

"${run[@]}" load-precomputed -v "$image" normalize-intensity \
  inference --framework pytorch --convnet-model "$here/affinity_unet.py" --convnet-weight-path "$here/affinity_unet.safetensors" \
  --input-patch-size 32 96 96 --output-patch-overlap 8 32 32 \
  save-precomputed -v "$out"
