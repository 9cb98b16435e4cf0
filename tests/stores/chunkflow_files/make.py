"""What made the files here, run by chunkflow 1.2.0 (numpy 1.26, zarr 2.18): python make.py."""

import subprocess
from pathlib import Path

import numpy as np
from chunkflow.chunk import Chunk
from chunkflow.lib.cartesian_coordinate import Cartesian

HERE = Path(__file__).parent
SPACE = {"voxel_offset": Cartesian(-1, 2, 3), "voxel_size": Cartesian(40, 4, 4)}
values = np.arange(8 * 9 * 10).reshape(8, 9, 10)

image = Chunk((values % 251).astype(np.uint8), **SPACE)
image.to_h5(str(HERE / "image.h5"))
image.to_tif(str(HERE / "image.tif"))
labels = Chunk((values % 5 * 7).astype(np.uint32), layer_type="segmentation", **SPACE)
labels.to_h5(str(HERE / "labels_"))
affinities = Chunk(np.stack([values / 720] * 3).astype(np.float32), layer_type="affinity_map", **SPACE)
affinities.to_h5(str(HERE / "affinities.h5"), chunk_size=None, compression="lzf")
layer = f"file://{HERE}/layer"
for line in (
    f"load-h5 -f {HERE}/image.h5 create-info -v {layer} -b 4 9 5",
    f"load-h5 -f {HERE}/image.h5 save-precomputed -v {layer}",
    f"create-chunk -s 4 6 8 -e 40 4 4 save-zarr -s {HERE}/sine.zarr --shape 4 6 8 -r 40 4 4 -m 0 -c 4 6 8",
):
    subprocess.run(["chunkflow", *line.split()], check=True)
