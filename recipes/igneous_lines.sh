#!/usr/bin/env bash
# The lines of a lab that runs igneous in production, and what takes their place. Usage: igneous_lines.sh IMAGE SEGMENTATION OUT
#
#   igneous image xfer IMAGE OUT/image --chunk-size 64,64,64        igneous image downsample OUT/image --num-mips 2
#   igneous image xfer SEG OUT/seg --encoding compressed_segmentation --sharded
#   igneous mesh forge OUT/seg --sharded; igneous mesh merge-sharded OUT/seg
#   igneous skeleton forge OUT/seg; igneous skeleton merge OUT/seg
#   igneous execute, as often as there are queues
set -euo pipefail
image=$1 segmentation=$2 out=$3
run=(daskflow ${CLUSTER:+--cluster "$CLUSTER"})

"${run[@]}" open "$image" save "$out/image" --chunk 64 64 64 --levels 2
"${run[@]}" open "$segmentation" save "$out/seg" --encoding compressed_segmentation --shard 128 128 128 --levels 2
"${run[@]}" open "$out/seg" mesh --format sharded skeletonize --format sharded
daskflow info "$out/seg"
