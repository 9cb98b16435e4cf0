"""Skeletons of real neurites by blocks of several sizes: how much cable and how many ends there are beside one block.

    python benchmarks/skeletons.py            # two crops of 100 x 128 x 128, twelve neurites each, about a minute
    python benchmarks/skeletons.py --small    # a trial of 48^3, whose figures mean nothing

Ratios are to what one block gives in the same run; dust and ticks are off. Voxels are taken as 40 x 16 x 16 nm.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.clusters import Threads
from daskflow.operators.objects.skeletonize import skeletonize
from daskflow.stores.objects.layer_objects import Skeletons
from daskflow.volume import Volume

DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
CORNERS = ((60, 60, 60), (100, 10, 110))
SHAPE = (100, 128, 128)
BLOCKS = (512, 96, 64, 48)
MOST = 12

Labels = np.ndarray[Any, Any]


def neurites(corner: tuple[int, ...], shape: tuple[int, ...]) -> Labels:
    """Return the largest neurites of a part of FIB-25, or blobs where the file is absent."""
    if (DATA / "fib25_labels.h5").is_file():
        import h5py

        with h5py.File(DATA / "fib25_labels.h5") as file:
            labels = file["main"][tuple(slice(a, a + n) for a, n in zip(corner, shape, strict=True))]
    else:
        from scipy.ndimage import gaussian_filter

        values = gaussian_filter(np.random.default_rng(0).random(shape, np.float32), 4, mode="wrap")
        labels = np.digitize(values, np.quantile(values, np.linspace(0.1, 0.9, 9))).astype(np.uint32)
    names, sizes = np.unique(labels[labels > 0], return_counts=True)
    return np.where(np.isin(labels, names[np.argsort(-sizes)][:MOST]), labels, 0).astype(np.uint32)


def measured(labels: Labels, block: int) -> tuple[float, int, float]:
    """Return the cable (nm), the ends and the CPU seconds of all skeletons."""
    volume = Volume.from_array(labels, voxel_size=(40, 16, 16), layer_type="segmentation")
    began = time.process_time()
    with tempfile.TemporaryDirectory() as directory, Threads() as threads:
        shape = (block,) * 3
        job = skeletonize(volume, output=f"{directory}/s", shape=shape, dust=0, min_cable_length=0, tick_length=0)
        job.run(threads, progress=False)
        took = time.process_time() - began
        skeletons = Skeletons(directory, directory="s")
        found = [skeletons.read(label) for label in skeletons.labels().tolist()]
    ends = sum(int((np.bincount(one.edges.ravel()) == 1).sum()) for one in found if one is not None)
    return sum(one.cable_length for one in found if one is not None), ends, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    for corner in CORNERS[:1] if small else CORNERS:
        labels = neurites(corner, (48, 48, 48) if small else SHAPE)
        print(f"corner {corner}\n{'block':>7} {'cable nm':>10} {'ratio':>6} {'ends':>5} {'ratio':>6} {'CPU s':>6}")
        whole: tuple[float, int] | None = None
        for block in (512, 24) if small else BLOCKS:
            cable, ends, took = measured(labels, block)
            whole = whole or (cable, ends)
            print(f"{block:>7} {cable:>10.0f} {cable / whole[0]:>6.2f} {ends:>5} {ends / whole[1]:>6.2f} {took:>6.1f}")


if __name__ == "__main__":
    main()
