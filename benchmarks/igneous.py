"""Whole commands beside igneous-pipeline: wall and CPU time, peak memory, start-up apart, and the floor of the work.

    python benchmarks/igneous.py                       # ours and igneous's, about ten minutes
    python benchmarks/igneous.py --theirs igneous.json # igneous's figures are kept there, and taken from there again
    python benchmarks/igneous.py --small               # a trial on 64^3, whose figures mean nothing

An image (uint8) and labels (uint64) of 512^3 voxels are tiled from the FIB-25 files, which DASKFLOW_TEST_DATA names;
meshes and skeletons are made of 256^3. Both programs read the same precomputed layers and write precomputed layers on
the same disk, each in as many processes as --processes says: daskflow with one block at a time in each.

CPU is that of all processes, start-up included; "start" is the CPU time of the same commands on 64^3 voxels. "floor" is
the CPU time of the kernel on arrays in memory and of igneous's coding of chunks, one thread, in this run. igneous is
taken from --igneous, DASKFLOW_ORACLE or .oracle; without it only daskflow is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _measured import Cost, run

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", ROOT.parent / "shared" / "data"))
Words = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is done.
        source: the layer it starts from; it is copied for each run, as some commands write into it.
        theirs: words of the igneous commands, one after another; SRC and DEST stand for the layers.
        ours: words of the daskflow commands; none where there is no such command yet.
        floor: name of its floor, or None.
    """

    name: str
    source: str
    theirs: tuple[Words, ...]
    ours: tuple[Words, ...]
    floor: str | None = None


def words(*lines: str) -> tuple[Words, ...]:
    """Return lines as words."""
    return tuple(tuple(line.split()) for line in lines)


ROWS = (
    Row(
        "downsample mean, 3 mips",
        "image",
        words("image downsample SRC --num-mips 3 --compress gzip"),
        words("open SRC downsample --levels 3"),
        "mean",
    ),
    Row(
        "downsample mode, 3 mips",
        "labels",
        words("image downsample SRC --num-mips 3 --compress gzip"),
        words("open SRC downsample --levels 3"),
        "mode",
    ),
    Row(
        "copy, 128x128x64 to 64^3, gzip",
        "flat",
        words("image xfer SRC DEST --chunk-size 64,64,64 --skip-downsample --compress gzip"),
        words("open SRC save DEST -c 64 64 64 --compression gzip"),
        "copy gzip",
    ),
    Row(
        "copy, 128x128x64 to 64^3, none",
        "plain",
        words("image xfer SRC DEST --chunk-size 64,64,64 --skip-downsample --compress none"),
        words("open SRC save DEST -c 64 64 64"),
        "copy",
    ),
    Row(
        "connected components",
        "labels",
        words("image ccl auto SRC DEST --shape 256,256,256 --encoding raw"),
        words("open SRC connected-components --connectivity 6 save DEST -e raw --compression gzip"),
        "components",
    ),
    Row(
        "contrast levels, every voxel",
        "image",
        words("image contrast histogram SRC --coverage 1"),
        words("open SRC contrast-levels"),
        "levels",
    ),
    Row(
        "contrast stretch",
        "histograms",
        words("image contrast equalize SRC DEST --shape 512,512,64"),
        words("open SRC contrast --levels source save DEST --compression gzip"),
        "stretch",
    ),
    Row(
        "voxel counts",
        "labels",
        words("image voxels count SRC", "image voxels sum SRC"),
        words("open SRC voxel-counts"),
        "counts",
    ),
    Row(
        "mesh 256^3, sharded multires",
        "quarter",
        words("mesh forge SRC --sharded", "mesh merge-sharded SRC --nlod 1"),
        words("open SRC mesh --lods 1"),
    ),
    Row("skeletons 256^3", "quarter", words("skeleton forge SRC", "skeleton merge SRC"), words("open SRC skeletonize")),
)


def main() -> None:
    """Print the table, line by line as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny data, to see that it runs")
    parser.add_argument("--igneous", type=Path, help="virtual environment that holds igneous")
    parser.add_argument("--theirs", type=Path, help="JSON file that keeps igneous's figures and the floors")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, help="how often daskflow's commands are measured")
    parser.add_argument("--only", default="", help="rows whose names contain this")
    parser.add_argument("--folder", type=Path, help="where layers go; a temporary directory unless said")
    options = parser.parse_args()
    rows = [row for row in ROWS if options.only in row.name]
    with tempfile.TemporaryDirectory(prefix="daskflow-igneous-", dir=options.folder) as name:
        Bench(Path(name), options).table(rows)


class Bench:
    """Measures rows on layers that it makes in a folder."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.options = options
        self.igneous = environment(options.igneous, needed=not options.small)
        kept: Path | None = options.theirs
        self.known: dict[str, Any] = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
        size = 64 if options.small else 512
        self.sizes = ("work",) if options.small else ("work", "start")
        for name, edge in zip(self.sizes, (size, 64), strict=False):
            make_layers(folder / name, edge)
        if self.igneous is not None and "floors" not in self.known:
            script = str(Path(__file__).with_name("_igneous_floors.py"))
            command = [str(self.igneous / "bin" / "python"), script, str(folder / "work")]
            self.known |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            self._keep()

    def _keep(self) -> None:
        if self.options.theirs is not None:
            self.options.theirs.write_text(json.dumps(self.known, indent=1))

    def table(self, rows: Sequence[Row]) -> None:
        """Print a line per row."""
        processes = self.options.processes
        columns = f"{'wall':>5} {'CPU':>5} {'start':>5} {'peak':>5}"
        title = f"{processes} process{'es' * (processes > 1)} each; s and MB"
        print(f"{title:31} {'igneous':^23}   {'daskflow':^23}   CPU time over")
        print(f"{'':31} {columns}   {columns}   igneous floor   floor")
        for row in rows:
            theirs, ours = self._theirs(row), self._ours(row)
            floor = self.known.get("floors", {}).get(row.floor)
            print(f"{row.name:31} {shown(theirs)}   {shown(ours)}   {ratios(theirs, ours, floor)}", flush=True)

    def _theirs(self, row: Row) -> tuple[Cost, Cost] | None:
        key = f"{row.name}, {self.options.processes}"
        if key in self.known:
            return tuple(Cost(**one) for one in self.known[key])  # type: ignore[return-value]
        if self.igneous is None:
            return None
        program = (str(self.igneous / "bin" / "igneous"), "-p", str(self.options.processes))
        costs = [self._run(program, row, row.theirs, size) for size in self.sizes]
        self.known[key] = [asdict(costs[0]), asdict(costs[-1])]
        self._keep()
        return costs[0], costs[-1]

    def _ours(self, row: Row) -> tuple[Cost, Cost] | None:
        if not row.ours:
            return None
        where = ("--cluster", "threads", "--threads", "1")
        if self.options.processes > 1:
            where = ("--cluster", "local", "--workers", str(self.options.processes))
        program = (sys.executable, "-m", "daskflow", "--quiet", *where)
        times = 1 if self.options.small else self.options.repeat
        work = Cost.least([self._run(program, row, row.ours, "work") for _ in range(times)])
        return work, work if "start" not in self.sizes else self._run(program, row, row.ours, "start")

    def _run(self, program: Words, row: Row, lines: Sequence[Words], size: str) -> Cost:
        """Run commands on a copy of the source, and delete what they wrote."""
        place = self.folder / "run"
        place.mkdir()
        shutil.copytree(self.folder / size / row.source, place / "source")
        layers = {"SRC": "source", "DEST": "target"}
        costs = []
        for line in lines:
            names = {key: f"file://{place / layer}" for key, layer in layers.items()}
            costs.append(run([*program, *(names.get(word, word) for word in line)], place))
        shutil.rmtree(place)
        total = costs[0]
        for cost in costs[1:]:
            total += cost
        return total


def shown(costs: tuple[Cost, Cost] | None) -> str:
    """Return the figures of one program."""
    if costs is None:
        return f"{'-':>5} {'-':>5} {'-':>5} {'-':>5}"
    work, start = costs
    return f"{work.wall:5.1f} {work.cpu:5.1f} {start.cpu:5.1f} {work.peak / 1e6:5.0f}"


def ratios(theirs: tuple[Cost, Cost] | None, ours: tuple[Cost, Cost] | None, floor: float | None) -> str:
    """Return our CPU time over igneous's and over the floor, and the floor."""
    to_theirs = f"{ours[0].cpu / theirs[0].cpu:.2f}" if ours and theirs else "-"
    to_floor = f"{ours[0].cpu / floor:.2f}" if ours and floor else "-"
    return f"{to_theirs:>7} {to_floor:>5} {'-' if floor is None else f'{floor:.2f}':>7}"


def environment(given: Path | None, *, needed: bool) -> Path | None:
    """Return the environment that holds igneous, which is made when it is needed; None where there is none."""
    known = given or (Path(os.environ["DASKFLOW_ORACLE"]) if os.environ.get("DASKFLOW_ORACLE") else None)
    if known is not None:
        return known
    if not needed:
        return None
    sys.path.insert(0, str(ROOT / "tests" / "oracle"))
    from environment import OracleError, oracle_python

    try:
        return oracle_python().parents[1]
    except OracleError as error:
        print(f"igneous is not measured: {error}")
        return None


def make_layers(folder: Path, size: int) -> None:
    """Write the sources of `size` cubed voxels, and the arrays that the floors are measured on."""
    import daskflow

    folder.mkdir()
    image, labels = volumes(size)
    np.save(folder / "image.npy", image)
    np.save(folder / "labels.npy", labels)
    flat: dict[str, Any] = {"chunk": (64, min(128, size), min(128, size)), "encoding": "raw"}
    cseg = {"chunk": (64, 64, 64), "encoding": "compressed_segmentation", "compression": "gzip"}
    quarter = labels[: max(64, size // 2), : max(64, size // 2), : max(64, size // 2)]
    with daskflow.connect("threads") as threads:
        for name, array, layer_type, layout in (
            ("image", image, "image", {"chunk": (64, 64, 64), "encoding": "raw", "compression": "gzip"}),
            ("flat", image, "image", {**flat, "compression": "gzip"}),
            ("plain", image, "image", flat),
            ("labels", labels, "segmentation", cseg),
            ("quarter", quarter, "segmentation", cseg),
        ):
            volume = daskflow.open(array, voxel_size=(10, 10, 10), layer_type=layer_type)
            volume.save(folder / name, **layout).run(threads, progress=False)
    shutil.copytree(folder / "image", folder / "histograms")
    write_levels(folder / "histograms", image)


def write_levels(layer: Path, image: np.ndarray[Any, Any]) -> None:
    """Write the histogram of every section where igneous looks for it."""
    (layer / "levels" / "0").mkdir(parents=True)
    for z, section in enumerate(image):
        levels = np.bincount(section.ravel(), minlength=256).tolist()
        values = {"levels": levels, "patch_size": [*section.T.shape, 1], "num_patches": 1, "coverage_ratio": 1.0}
        (layer / "levels" / "0" / str(z)).write_text(json.dumps(values))


def volumes(size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return image and labels, zyx, tiled from the FIB-25 files; made up where these are absent."""
    if not (DATA / "fib25_image.tif").is_file():
        print(f"no FIB-25 files in {DATA}: voxels are made up, and the figures not those of real data")
        rng = np.random.default_rng(0)
        image = rng.integers(1, 256, (64, 64, 64), np.uint8)
        labels = np.kron(rng.integers(0, 50, (4, 4, 4)), np.ones((16, 16, 16))).astype(np.uint64)
    else:
        import h5py
        import tifffile

        image = tifffile.imread(DATA / "fib25_image.tif")
        with h5py.File(DATA / "fib25_labels.h5") as file:
            labels = file["main"][:].astype(np.uint64)
    return tiled(image, size), tiled(labels, size)


def tiled(array: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Return a cube of `size` from copies of an array."""
    return np.ascontiguousarray(np.tile(array, [-(-size // n) for n in array.shape])[:size, :size, :size])


if __name__ == "__main__":
    main()
