"""Watershed and agglomeration beside waterz in one piece: CPU, memory, and what boxes leave to larger ones.

    python benchmarks/agglomeration.py             # 256^3, two minutes
    python benchmarks/agglomeration.py --side 512  # ten minutes, 13 GB for waterz
    python benchmarks/agglomeration.py --small     # a trial on 48^3, whose figures mean nothing

Affinities are of a synthetic volume: inside cells high, at their borders low, with smooth noise. Both programs read the
same array and write labels, first of the basins alone, for which waterz also makes the region graph. CPU is that of all
processes, start-up included. daskflow runs in workers with one thread, one of them unless said. waterz starts from a
NumPy file that is read whole, which favours it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from _measured import run
from scipy.ndimage import gaussian_filter

import daskflow
from daskflow.demo.phantom import phantom

LOW, HIGH, THRESHOLD = 0.05, 0.98, 0.4
WATERZ = f"""
import sys, numpy as np, waterz
affinities, least = np.load("affinities.npy"), float(sys.argv[1])
(found,) = waterz.agglomerate(affinities, [least], aff_threshold_low={LOW}, aff_threshold_high={HIGH})
np.save("theirs.npy", found)
"""


def affinities_of(side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return affinities, zyx, of a cube."""
    _, truth = phantom((side, side, side), seed=1)
    random = np.random.default_rng(0)
    found = np.empty((3, *truth.shape), np.float32)
    for axis in range(3):
        same = (np.roll(truth, 1, axis) == truth) & (truth > 0)
        noise = gaussian_filter(random.standard_normal(truth.shape).astype(np.float32), 1)
        found[axis] = np.clip(gaussian_filter(same.astype(np.float32), 0.8) + 0.3 * noise - 0.05, 0, 1)
    return found


def compare(operator: str, options: str, least: float, block: int, workers: int, place: Path) -> None:
    """Print what an operator costs beside waterz up to a score, 0 merging nothing, and how many objects they find."""
    shape = f"{block} {block} {block}"
    line = f"--workers {workers} --threads 1 open affinities {operator} --order zyx --low {LOW} --high {HIGH} {options}"
    line += f" save ours --overwrite --block {shape} --chunk {shape}"
    ours = run([sys.executable, "-m", "daskflow", *line.split()], place)
    theirs = run([sys.executable, "-c", WATERZ, str(least)], place)
    print(f"{operator:12}{'CPU':>10}{'wall':>10}{'peak':>12}")
    for name, cost in (("daskflow", ours), ("waterz", theirs)):
        print(f"{name:12}{cost.cpu:8.1f} s{cost.wall:8.1f} s{cost.peak / 1e6:9.0f} MB")
    ratios = ours.cpu / theirs.cpu, ours.wall / theirs.wall, ours.peak / theirs.peak
    print(f"{'ratio':12}" + "".join(f"{ratio:10.2f}" for ratio in ratios))
    labels, other = daskflow.open(place / "ours").read(), np.load(place / "theirs.npy")
    pairs = np.unique(np.stack((labels.ravel().astype(np.uint64), other.ravel())), axis=1).shape[1]
    print(f"objects: {len(np.unique(labels)):,} and {len(np.unique(other)):,}, {pairs:,} pairs of both")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a trial on 48^3")
    parser.add_argument("--side", type=int, default=256, help="of the cube of voxels")
    parser.add_argument("--workers", type=int, default=1, help="of daskflow, of a thread each")
    given = parser.parse_args()
    side = 48 if given.small else given.side
    block = min(128, side // 2)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        array = affinities_of(side)
        np.save(place / "affinities.npy", array)
        layer = daskflow.open(array, layer_type="affinity_map", voxel_size=(10, 10, 10))
        layer.save(place / "affinities", chunk=(block,) * 3, encoding="raw").run(progress=False)
        daskflow.agglomerate(daskflow.open(array[:, :8, :8, :8].copy())).read()  # compiled and kept
        print(f"{side}^3 voxels, blocks of {block}^3, threshold {THRESHOLD}")
        compare("watershed", "", 0, block, given.workers, place)
        compare("agglomerate", f"-t {THRESHOLD}", 1 - THRESHOLD, block, given.workers, place)
        report = json.loads((place / "ours.daskflow" / "report.json").read_text())
        counts = {name: count for stage in report["stages"] for name, count in stage["counts"].items()}
        print("edges:", ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items()))


if __name__ == "__main__":
    main()
