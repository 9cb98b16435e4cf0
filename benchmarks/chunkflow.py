"""Command lines that chunkflow 1.2 and daskflow both run: CPU and wall time, and their ratios in this run.

    python benchmarks/chunkflow.py --chunkflow ~/chunkflow/bin/chunkflow  # about five minutes
    python benchmarks/chunkflow.py --small                                # a trial on 64^3, whose figures mean nothing

The lines are the same word for word, on noise of 256^3 voxels (uint8), blurred, in TIFF, HDF5 and precomputed files on
the same disk. Each program runs each line three times in turns; the least counts, start-up included. chunkflow needs
numpy before 2, so it has an environment of its own: ``pip install chunkflow==1.2 'numpy<2'``. Without --chunkflow
only daskflow is measured. CPU is that of all processes. chunkflow's own engine for PyTorch does not run without CUDA,
so the network is a file that both load.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _measured import Cost, run
from scipy.ndimage import gaussian_filter

PATCH = "-s 16 64 64 -v 4 16 16"
BLEND = f"{PATCH} -c 3 --mask-output-chunk"
NET = """
import numpy as np
from scipy.ndimage import uniform_filter

class PatchInferencer:
    def __init__(self, weight_path, mask):
        self.mask = mask

    def __call__(self, patches):
        means = uniform_filter(patches.astype(np.float32), (0, 0, 3, 3, 3))
        return np.concatenate([means, 1 - means, means / 2], axis=1) * self.mask
"""
LINES = {
    "--help": "--help",
    "64^3, made and saved": "create-chunk -s 64 64 64 save-h5 -f out.h5",
    "TIFF to HDF5": "load-tif -f em.tif save-h5 -f out.h5",
    "normalize, HDF5 to HDF5": "load-h5 -f em.h5 normalize-intensity save-h5 -f out.h5",
    "blur, HDF5 to TIFF": "load-h5 -f em.h5 gaussian-filter -s 1 save-tif -f out.tif",
    "threshold, components": "load-h5 -f em.h5 threshold -t 140 connected-components save-h5 -f out.h5",
    "precomputed to HDF5": "load-precomputed -v file://LAYER save-h5 -f out.h5",
    "inference, identity": f"load-h5 -f em.h5 inference -f identity {BLEND} save-h5 -f out.h5",
    "inference, own network": f"load-h5 -f em.h5 inference -f universal -m net.py {BLEND} save-h5 -f out.h5",
}


def main() -> None:
    """Print what every line costs, and daskflow's share of what it costs chunkflow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="64^3 voxels, once each")
    parser.add_argument("--chunkflow", type=Path, help="path of the chunkflow command")
    parser.add_argument("--only", default="", help="lines whose name contains this")
    words = parser.parse_args()
    programs = {"daskflow": (sys.executable, "-m", "daskflow")}
    if words.chunkflow:
        programs["chunkflow"] = (str(words.chunkflow.absolute()),)
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        make(source, 64 if words.small else 256)
        print(f"{'':24}{'':>10}   CPU s  wall s  peak MB")
        for line, said in LINES.items():
            if words.only in line:
                show(line, measure(programs, said.split(), source, 1 if words.small else 3))


def make(folder: Path, size: int) -> None:
    """Write what the lines read."""
    import daskflow

    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (size,) * 3).astype(np.float32)
    blurred = gaussian_filter(noise, 1)
    em = (128 + 30 * (blurred - blurred.mean()) / blurred.std()).clip(0, 255).astype(np.uint8)
    volume = daskflow.open(em, voxel_size=(40, 4, 4), layer_type="image")
    for place in ("em.tif", "em.h5", "layer"):
        daskflow.save(volume, folder / place).run(progress=False)
    (folder / "net.py").write_text(NET)


def measure(programs: dict[str, tuple[str, ...]], line: Sequence[str], source: Path, times: int) -> dict[str, Cost]:
    """Return what a line costs each program, each time in a folder of its own."""
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    said = [word.replace("LAYER", str(source / "layer")) for word in line]
    for _ in range(times):
        for name, command in programs.items():
            with tempfile.TemporaryDirectory(dir=source.parent) as place:
                for file in source.iterdir():
                    if file.is_file():
                        shutil.copy(file, place)
                costs[name].append(run([*command, *said], Path(place)))
    return {name: Cost.least(found) for name, found in costs.items()}


def show(line: str, costs: dict[str, Cost]) -> None:
    """Print the figures of a line."""
    for number, (name, cost) in enumerate(costs.items()):
        print(f"{'' if number else line:24}{name:>10}  {cost.cpu:6.2f}  {cost.wall:6.2f}  {cost.peak / 1e6:7.0f}")
    if len(costs) == 2:
        ours, theirs = costs["daskflow"], costs["chunkflow"]
        print(f"{'':24}{'ratio':>10}  {ours.cpu / theirs.cpu:6.2f}  {ours.wall / theirs.wall:6.2f}", flush=True)


if __name__ == "__main__":
    main()
