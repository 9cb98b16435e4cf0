"""Connected components: blocks on two workers against cc3d on the whole volume.

    python benchmarks/ccl.py            # 512^3, about a minute
    python benchmarks/ccl.py --small    # a trial of 64^3, whose figures mean nothing

Both start from the same stored volume and end with a stored one. CPU seconds are those of all processes, start-up and
a first small run apart; "cc3d" is the bare call on an array in memory. Peak memory is what a process holds above what
it held then. The target: at most 4 times cc3d's CPU time, and a tenth of the memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import daskflow

DATA = ("mask", "labels", "noise")
_TILE = 64


def make(kind: str, size: int) -> np.ndarray[Any, Any]:
    """Return a volume of blobs (a mask or labels) or of noise, seeded."""
    from scipy.ndimage import gaussian_filter

    values = np.random.default_rng(0).random((_TILE,) * 3, np.float32)
    if kind != "noise":
        values = gaussian_filter(values, 3, mode="wrap")
    if kind == "labels":
        tile = 1 + np.digitize(values, np.quantile(values, np.linspace(0.1, 0.9, 9))).astype(np.uint32)
    else:
        tile = (values > np.quantile(values, 0.6)).astype(np.uint8)
    repeats = -(-size // _TILE)
    return np.ascontiguousarray(np.tile(tile, (repeats,) * 3)[:size, :size, :size])


def begin() -> int:
    """Forget the peak so far, and return the bytes that this process holds."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most bytes this process has held since `begin`."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def whole(source: str, target: str, connectivity: int) -> dict[str, float]:
    """Label the stored volume as one array with cc3d; return CPU seconds and bytes."""
    import cc3d

    corner = daskflow.open(source)[:64, :64, :64].read()
    cc3d.connected_components(corner, connectivity=connectivity)
    before = begin()
    began = time.process_time()
    array = daskflow.open(source).read()
    called = time.process_time()
    labels, count = cc3d.connected_components(array, connectivity=connectivity, return_N=True, out_dtype=np.uint32)
    ended = time.process_time()
    held = peak() - before
    store = daskflow.open(target).node.store
    store.write(store.spec.box, labels)
    return {
        "cc3d": ended - called,
        "cpu": time.process_time() - began,
        "memory": held,
        "components": count,
    }


def blocks(source: str, target: str, connectivity: int, block: int, workers: int) -> dict[str, float]:
    """Label the stored volume by blocks on worker processes; return CPU seconds and bytes."""
    with daskflow.connect("local", workers=workers, threads=1) as client:
        corner = daskflow.open(source)[:64, :64, :64].with_block(32)
        trial = daskflow.connected_components(corner, connectivity=connectivity).save(
            f"{target}-trial", chunk=(32, 32, 32)
        )
        trial.run(client, progress=False)
        before = client.run(begin)
        volume = daskflow.open(source).with_block(block)
        labelled = daskflow.connected_components(volume, connectivity=connectivity)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        cpu, wall = _cpu(processes), time.perf_counter()
        report = labelled.save(target, chunk=(64, 64, 64)).run(client, progress=False)
        cpu, wall = _cpu(processes) - cpu, time.perf_counter() - wall
        after = client.run(peak)
    assert report.ok, report
    return {
        "cpu": cpu,
        "wall": wall,
        "memory": max(after[worker] - before[worker] for worker in after),
        "components": report.counts["components"],
    }


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure(kind: str, size: int, block: int, connectivity: int, workers: int = 2) -> dict[str, float]:
    """Return the figures of one volume, and print them with their ratios."""
    with tempfile.TemporaryDirectory(prefix="daskflow-ccl-") as directory:
        source, one, many = (str(Path(directory) / name) for name in ("source.zarr", "whole.zarr", "blocks.zarr"))
        array = make(kind, size)
        with daskflow.connect("threads") as threads:
            daskflow.open(array).save(source, chunk=(64, 64, 64)).run(threads, progress=False)
            empty = daskflow.open(np.zeros((size,) * 3, np.uint32)).save(one, chunk=(64, 64, 64))
            empty.run(threads, progress=False)
        del array
        call = [sys.executable, __file__, "--only-whole", source, one, str(connectivity)]
        reference = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
        ours = blocks(source, many, connectivity, block, workers)
        same = all(
            np.array_equal(daskflow.open(one)[z : z + 64].read(), daskflow.open(many)[z : z + 64].read())
            for z in range(0, size, 64)
        )
    figures = {
        "cc3d_cpu": reference["cc3d"],
        "whole_cpu": reference["cpu"],
        "blocks_cpu": ours["cpu"],
        "blocks_wall": ours["wall"],
        "whole_memory": reference["memory"],
        "blocks_memory": ours["memory"],
        "same": float(same),
    }
    print(
        f"{kind} {size}^3, blocks of {block}^3, connectivity {connectivity}, {int(ours['components']):,} components"
        f" ({'the same numbers' if same else 'DIFFERENT NUMBERS'})\n"
        f"  CPU s   cc3d {reference['cc3d']:.2f}, read + cc3d + write {reference['cpu']:.2f};"
        f" {workers} workers {ours['cpu']:.2f} (wall {ours['wall']:.2f})"
        f"  ratio {ours['cpu'] / reference['cc3d']:.1f} to cc3d, {ours['cpu'] / reference['cpu']:.1f} to all three\n"
        f"  memory  whole {reference['memory'] / 1e6:.0f} MB; each worker {ours['memory'] / 1e6:.0f} MB"
        f"  ratio {ours['memory'] / max(1, reference['memory']):.2f}"
    )
    return figures


def main(arguments: list[str]) -> None:
    """Run from the command line."""
    if arguments[:1] == ["--only-whole"]:
        print(json.dumps(whole(arguments[1], arguments[2], int(arguments[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--connectivity", type=int, choices=(6, 18, 26), default=26)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", nargs="+", choices=DATA, default=["mask", "labels"])
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args(arguments)
    if options.small:
        options.size, options.block = 64, 32
    for kind in options.data:
        measure(kind, options.size, options.block, options.connectivity, options.workers)


if __name__ == "__main__":
    main(sys.argv[1:])
