"""Downsampling kernels: Gvoxel per second of CPU on one core, beside tinybrain if a Python that has it is named.

    python benchmarks/downsampling.py                                  # 64 x 512 x 512, some seconds
    python benchmarks/downsampling.py --tinybrain /some/venv/bin/python
    python benchmarks/downsampling.py --small                          # a trial whose figures mean nothing

Labels are blobs a few voxels wide, which is harder than neurites at full resolution; "noise" is four labels at random,
the worst case. Rates are of voxels of the source for all levels together, the best of several calls. The targets, for
three levels of 1 2 2: mean of uint8 1.46, mode of uint64 0.62. tinybrain (GPL) runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CASES = {  # name: data, dtype, factor, method
    "mean uint8 1 2 2": ("image", "uint8", (1, 2, 2), "mean"),
    "mean uint16 1 2 2": ("image", "uint16", (1, 2, 2), "mean"),
    "mean float32 1 2 2": ("image", "float32", (1, 2, 2), "mean"),
    "mean uint8 2 2 2": ("image", "uint8", (2, 2, 2), "mean"),
    "mode uint64 1 2 2": ("labels", "uint64", (1, 2, 2), "mode"),
    "mode uint64 1 2 2, noise": ("noise", "uint64", (1, 2, 2), "mode"),
    "mode uint32 2 2 2": ("labels", "uint32", (2, 2, 2), "mode"),
    "max uint8 1 2 2": ("image", "uint8", (1, 2, 2), "max"),
}
_TINYBRAIN = """
import json, sys, time
import numpy as np, tinybrain
rates = {}
for name, (path, factor, method) in json.load(open(sys.argv[1])).items():
    array = np.load(path).T
    call = {"mean": tinybrain.downsample_with_averaging, "mode": tinybrain.downsample_segmentation}[method]
    best = 1e9
    for _ in range(int(sys.argv[3])):
        begun = time.process_time()
        call(array, factor[::-1], num_mips=int(sys.argv[2]))
        best = min(best, time.process_time() - begun)
    rates[name] = array.size / best / 1e9
print(json.dumps(rates))
"""


def make(kind: str, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """Return noise of grey values, blobs of labels, or noise of labels, seeded."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(0)
    if kind == "image":
        return random.integers(0, 256, shape)
    if kind == "noise":
        return random.integers(0, 4, shape)
    tile = gaussian_filter(random.random((64, 64, 64), np.float32), 5, mode="wrap")
    labels = 1 + np.digitize(tile, np.quantile(tile, np.linspace(0.05, 0.95, 19)))
    repeats = [-(-n // 64) for n in shape]
    z, y, x = shape
    return np.tile(labels, repeats)[:z, :y, :x] * 1_000_003


def best(call: Callable[[], Any], repeats: int) -> float:
    """Return the least CPU seconds of several calls."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return min(taken)


def main(arguments: list[str]) -> dict[str, float]:
    """Run from the command line; return the rates."""
    from daskflow.operators.stores.downsample.kernels import Carried, Downsampling

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--tinybrain", help="a Python that imports tinybrain")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    shape = (4, 64, 64) if options.small else (64, 512, 512)
    rates, theirs = {}, {}
    with tempfile.TemporaryDirectory(prefix="daskflow-downsampling-") as directory:
        cases: dict[str, Any] = {}
        for number, (name, (data, dtype, factor, method)) in enumerate(CASES.items()):
            array = np.ascontiguousarray(make(data, shape).astype(dtype))
            how = Downsampling(factor, method)
            seconds = best(lambda h=how, a=array: h.run(Carried(a), options.levels, dtype=a.dtype), options.repeats)
            rates[name] = array.size / seconds / 1e9
            if options.tinybrain and method in ("mean", "mode"):
                path = str(Path(directory) / f"{number}.npy")
                np.save(path, array)
                cases[name] = (path, factor, method)
        if cases:
            listed = Path(directory) / "cases.json"
            listed.write_text(json.dumps(cases))
            words = [options.tinybrain, "-c", _TINYBRAIN, str(listed), str(options.levels), str(options.repeats)]
            theirs = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    print(f"{options.levels} levels of {' x '.join(map(str, shape))} voxels, Gvoxel per CPU second")
    for name, rate in rates.items():
        beside = f"   tinybrain {theirs[name]:5.2f}   ratio {rate / theirs[name]:.2f}" if name in theirs else ""
        print(f"  {name:26} {rate:5.2f}{beside}")
    return rates


if __name__ == "__main__":
    main(sys.argv[1:])
