"""Read and write rates of the stores over the library below them, alone, on the same data and disk.

    python benchmarks/io.py            # 512^3 voxels, some minutes
    python benchmarks/io.py --small    # a trial of 64^3, whose figures mean nothing

Each line is the best of some repetitions, taken in turn, on files in the page cache: Mvoxel/s by the clock, and how
daskflow compares by the clock and in CPU seconds of all threads. At least 0.8 of tensorstore alone is wanted. For gzip
the reference is ISA-L on the same chunks, contiguous in memory, to and from files of the same size.
For HDF5 and TIFF the references are h5py and tifffile.

A case is one entry of `CASES`; `alone` gives the two calls to compare with.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorstore as ts
from isal import igzip_lib
from scipy.ndimage import gaussian_filter

from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores.base import Array, Layout
from daskflow.stores.opening import create_store, format_named, open_store, write_file

CHUNK = (64, 64, 64)
Calls = tuple[Callable[[], object], Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One layout of one store.

    Attributes:
        name: what is shown.
        data: "image" (uint8) or "labels" (uint64).
        format: as in `create_store` or `write_file`.
        layout: as there.
        alone: (directory, spec as created, voxels) -> the calls that write and read the same without daskflow.
    """

    name: str
    data: str
    format: str
    layout: Layout
    alone: Callable[[Path, VolumeSpec, Array], Calls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny data, to see that it runs")
    parser.add_argument("--repeat", type=int, default=5, help="repetitions of each measurement")
    parser.add_argument("--only", default="", help="run the cases whose names contain this")
    options = parser.parse_args()
    size, repeat = (64, 1) if options.small else (512, options.repeat)
    volumes = {"image": image(size), "labels": labels(size // 2)}
    print(f"{'':44} {'Mvoxel/s':>9} {'alone':>9} {'ratio':>7} {'CPU ratio':>10}")
    for case in CASES:
        if options.only in case.name:
            with tempfile.TemporaryDirectory() as folder:
                measure(case, Path(folder), volumes[case.data], repeat)


def measure(case: Case, folder: Path, array: Array, repeat: int) -> None:
    """Print the rates of writing and reading one volume whole, ours beside the library's alone."""
    layer_type = "segmentation" if case.data == "labels" else "image"
    spec = VolumeSpec(
        box=BoundingBox((0, 0, 0), array.shape), dtype=array.dtype, voxel_size=(40, 4, 4), layer_type=layer_type
    )
    ours, theirs = folder / "daskflow", folder / "alone"
    mine, spec = writer(case, ours, spec, array)
    write, read = case.alone(theirs, spec, array)
    pairs = {
        "write": (mine, write),
        "read": (lambda: open_store(ours).read(spec.box), read),
    }
    for verb, (call, alone) in pairs.items():
        call()
        alone()
        times = np.array([[timed(call), timed(alone)] for _ in range(repeat)]).min(axis=0)
        rates, ratios = array.size / times[:, 0] / 1e6, times[1] / times[0]
        print(f"{case.name:38} {verb:>5} {rates[0]:9.0f} {rates[1]:9.0f} {ratios[0]:7.2f} {ratios[1]:10.2f}")
    if not (open_store(ours).read(spec.box) == array).all():
        raise SystemExit(f"{case.name}: what was read is not what was written")


def writer(case: Case, ours: Path, spec: VolumeSpec, array: Array) -> tuple[Callable[[], object], VolumeSpec]:
    """Return the call that writes the whole by daskflow, and the spec as created."""
    if format_named(case.format).store.of_chunks:
        store = create_store(ours, spec, format=case.format, layout=case.layout)
        return lambda: store.write(spec.box, array), store.spec

    def read(box: BoundingBox) -> Array:
        return array[box.slices(spec.box)]

    return lambda: write_file(ours, spec, read, format=case.format, layout=case.layout), spec


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock and CPU seconds of all threads."""
    clock, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - cpu


def image(size: int) -> Array:
    """Return a volume like an EM image: smooth structures and noise."""
    rng = np.random.default_rng(0)
    tile = gaussian_filter(rng.random((64, 64, 64), np.float32), 2, mode="wrap")
    tile = 128 + 700 * (tile - 0.5) + rng.normal(0, 12, tile.shape)
    return np.tile(np.clip(tile, 1, 255).astype(np.uint8), (-(-size // 64),) * 3)[:size, :size, :size].copy()


def labels(size: int) -> Array:
    """Return a volume like a segmentation: compact objects, each with its own number, some background."""
    values = gaussian_filter(np.random.default_rng(1).random((64, 64, 64), np.float32), 4, mode="wrap")
    tile = np.digitize(values, np.quantile(values, np.linspace(0.1, 0.9, 9))).astype(np.uint64)
    array = np.tile(tile, (-(-size // 64),) * 3)[:size, :size, :size].copy()
    for number, box in enumerate(BlockGrid(BoundingBox((0, 0, 0), array.shape), CHUNK)):
        part = array[box.slices(BoundingBox((0, 0, 0), array.shape))]
        part[part > 0] += np.uint64(100 * number)
    return array


def precomputed_alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:
    """Write and read by tensorstore, as it is fastest: through the transposed view, without fsync."""
    assert spec.channels is None
    shutil.copytree(folder.with_name("daskflow"), folder)
    request = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "file", "path": f"{folder}/"}}
    context = ts.Context({"file_io_sync": False})
    view = ts.open(request, open=True, context=context).result()[..., 0].T
    return lambda: view.write(array).result(), lambda: view.read(order="C").result()


def isal_alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:
    """Compress chunks that lie ready in memory into files, and decompress them, on as many threads."""
    folder.mkdir()
    chunks = [np.ascontiguousarray(array[box.slices(spec.box)]).tobytes() for box in BlockGrid(spec.box, CHUNK)]
    pool = ThreadPoolExecutor()

    def write_one(number: int) -> None:
        path = folder / f"{number}.partial"
        path.write_bytes(igzip_lib.compress(chunks[number], 1, igzip_lib.COMP_GZIP))
        path.replace(folder / f"{number}.gz")

    def read_one(number: int) -> int:
        data = (folder / f"{number}.gz").read_bytes()
        return len(igzip_lib.decompress(data, igzip_lib.DECOMP_GZIP, bufsize=len(chunks[number])))

    def each(function: Callable[[int], object]) -> Callable[[], object]:
        return lambda: deque(pool.map(function, range(len(chunks))), maxlen=0)

    return each(write_one), each(read_one)


def codec_alone(encode: Callable[[Array], bytes], decode: Callable[[bytes], Array]) -> Callable[..., Calls]:
    """Return a function that gives the calls that code chunks, ready in memory, into files and back, one by one."""

    def alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:
        folder.mkdir()
        chunks = [np.ascontiguousarray(array[box.slices(spec.box)]) for box in BlockGrid(spec.box, CHUNK)]

        def write() -> None:
            for number, chunk in enumerate(chunks):
                (folder / f"{number}").write_bytes(encode(chunk))

        def read() -> None:
            for number in range(len(chunks)):
                decode((folder / f"{number}").read_bytes())

        return write, read

    return alone


def codecs() -> Iterator[Case]:
    """Yield the cases of encodings whose library is called chunk by chunk; the references are these libraries."""
    import compresso
    import crackle
    import imagecodecs

    def jxl(chunk: Array) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(chunk.reshape(-1, 64), level=100, lossless=True, effort=3, numthreads=1))

    for name, data, quality, encode, decode in [
        ("crackle", "labels", None, lambda c: crackle.compress(c.T, parallel=1), crackle.decompress),
        ("compresso", "labels", None, lambda c: compresso.compress(c.T), compresso.decompress),
        ("jxl", "image", 100, jxl, imagecodecs.jpegxl_decode),
    ]:
        layout = Layout(chunk=CHUNK, encoding=name, quality=quality)
        alone = codec_alone(encode, decode)
        yield Case(f"precomputed {name}, {data}, over its library", data, "precomputed", layout, alone)


def precomputed() -> Iterator[Case]:
    """Yield the cases of precomputed layers."""
    whole = (512, 512, 512)
    for name, data, layout in [
        ("raw, uint8", "image", Layout(chunk=CHUNK, encoding="raw")),
        ("raw, uint8, sharded", "image", Layout(chunk=CHUNK, encoding="raw", shard=whole)),
        ("raw, uint64", "labels", Layout(chunk=CHUNK, encoding="raw")),
        ("compressed_segmentation, uint64", "labels", Layout(chunk=CHUNK, encoding="compressed_segmentation")),
        (
            "compressed_segmentation, uint64, sharded",
            "labels",
            Layout(chunk=CHUNK, encoding="compressed_segmentation", shard=whole),
        ),
    ]:
        yield Case(f"precomputed {name}", data, "precomputed", layout, precomputed_alone)
    for data in ("image", "labels"):
        layout = Layout(chunk=CHUNK, encoding="raw", compression="gzip")
        yield Case(f"precomputed raw .gz, {data}, over ISA-L", data, "precomputed", layout, isal_alone)


def zarr_alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:  # noqa: ARG001
    """Write and read by tensorstore, without fsync."""
    shutil.copytree(folder.with_name("daskflow"), folder)
    path = folder / "0" if (folder / "0").is_dir() else folder
    driver = "zarr3" if (path / "zarr.json").exists() else "zarr"
    request = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "store_data_equal_to_fill_value": True,
    }
    view = ts.open(request, open=True, context=ts.Context({"file_io_sync": False})).result()
    return lambda: view.write(array).result(), lambda: view.read(order="C").result()


def zarr() -> Iterator[Case]:
    """Yield the cases of zarr arrays and OME-Zarr images."""
    sharded = Layout(chunk=CHUNK, shard=(256, 256, 256))
    for name, layout in [("zarr3", Layout(chunk=CHUNK)), ("zarr3", sharded), ("zarr2", Layout(chunk=CHUNK))]:
        shown = f"{name} zstd, uint8{', sharded' if layout.shard else ''}"
        yield Case(shown, "image", name, layout, zarr_alone)
    yield Case("ome-zarr zstd, uint64", "labels", "ome-zarr", Layout(chunk=CHUNK), zarr_alone)
    yield Case("zarr3 raw, uint8", "image", "zarr3", Layout(chunk=CHUNK, encoding="raw"), zarr_alone)


def hdf5_alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:  # noqa: ARG001
    """Write and read by h5py, gzip level 1."""
    import h5py

    chunk = tuple(map(min, CHUNK, array.shape))

    def write() -> None:
        with h5py.File(folder, "w") as file:
            file.create_dataset("main", data=array, chunks=chunk, compression="gzip", compression_opts=1)

    def read() -> Array:
        with h5py.File(folder) as file:
            voxels: Array = file["main"][:]
        return voxels

    return write, read


def tiff_alone(folder: Path, spec: VolumeSpec, array: Array) -> Calls:  # noqa: ARG001
    """Write and read by tifffile, zlib level 1."""
    import tifffile

    options = {"compression": "zlib", "compressionargs": {"level": 1}, "photometric": "minisblack"}
    return lambda: tifffile.imwrite(folder, array, **options), lambda: tifffile.imread(folder)


def files() -> Iterator[Case]:
    """Yield the cases of files that one writer makes; the references are h5py and tifffile."""
    for data in ("image", "labels"):
        yield Case(f"hdf5 gzip, {data}, over h5py", data, "hdf5", Layout(chunk=CHUNK), hdf5_alone)
    yield Case("tiff zlib, image, over tifffile", "image", "tiff", Layout(), tiff_alone)


CASES: list[Case] = [*precomputed(), *codecs(), *zarr(), *files()]

if __name__ == "__main__":
    main()
