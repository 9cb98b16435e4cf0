"""Floors of igneous's work: the kernel on arrays in memory, and the coding of chunks that igneous does around it.

Run by the Python of igneous's environment with the folder that holds image.npy and labels.npy (zyx); prints JSON: CPU
seconds of one thread by name of the work.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cc3d
import compressed_segmentation as cseg
import deflate
import fastremap
import numpy as np
import tinybrain

Array = np.ndarray[Any, Any]


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """Return the least CPU seconds of some calls."""
    best = float("inf")
    for _ in range(times):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best


def chunks(array: Array, shape: tuple[int, int, int] = (64, 64, 64)) -> list[Array]:
    """Return the chunks of an array, contiguous."""
    starts = [range(0, n, s) for n, s in zip(array.shape, shape, strict=True)]
    return [
        np.asfortranarray(array[z : z + shape[0], y : y + shape[1], x : x + shape[2]])
        for z in starts[0]
        for y in starts[1]
        for x in starts[2]
    ]


def gzip(array: Array, level: int = 9) -> tuple[float, float]:
    """Return CPU seconds per voxel of coding and of decoding raw chunks with gzip."""
    parts = chunks(array)[:64]
    voxels = sum(part.size for part in parts)
    stored = [deflate.gzip_compress(part.tobytes("F"), level) for part in parts]
    code = seconds(lambda: [deflate.gzip_compress(part.tobytes("F"), level) for part in parts], 1)
    decode = seconds(lambda: [deflate.gzip_decompress(part) for part in stored])
    return code / voxels, decode / voxels


def segmentation(array: Array) -> tuple[float, float]:
    """Return CPU seconds per voxel of coding and of decoding compressed_segmentation with gzip around it."""
    parts = chunks(array)[:64]
    voxels = sum(part.size for part in parts)
    bare = [cseg.compress(part, order="F") for part in parts]
    stored = [deflate.gzip_compress(part, 9) for part in bare]
    code = seconds(lambda: [deflate.gzip_compress(cseg.compress(part, order="F"), 9) for part in parts], 1)
    decode = seconds(
        lambda: [
            cseg.decompress(bytes(deflate.gzip_decompress(one)), part.shape, part.dtype, order="F")
            for one, part in zip(stored, parts, strict=True)
        ]
    )
    return code / voxels, decode / voxels


def levels(kernel: Callable[..., object], array: Array) -> float:
    """Return CPU seconds of three levels, made in blocks as igneous makes them."""
    image = np.asfortranarray(array.T)
    return seconds(lambda: kernel(image, (2, 2, 1), num_mips=3))


def files(array: Array, folder: Path) -> None:
    """Write the chunks of an array to files and read them, each in order, uncompressed."""
    parts = chunks(array)
    for number, part in enumerate(parts):
        (folder / f"{number}.chunk").write_bytes(part.T)
    for number in range(len(parts)):
        (folder / f"{number}.chunk").read_bytes()
    for number in range(len(parts)):
        (folder / f"{number}.chunk").unlink()


def stretch(image: Array) -> None:
    """Stretch every section by two of its levels."""
    for section in image:
        low, high = 10, 240
        np.clip(np.round((section.astype(np.float32) - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


def main() -> None:
    """Print all floors."""
    folder = Path(sys.argv[1])
    image, labels = (np.load(folder / f"{name}.npy") for name in ("image", "labels"))
    part = labels[:256, :256, :256]
    n, eighths = image.size, 1 / 4 + 1 / 16 + 1 / 64
    code, decode = gzip(image)
    code_labels, decode_labels = segmentation(part)
    kernels = {
        "mean": levels(tinybrain.downsample_with_averaging, image),
        "mode": levels(tinybrain.downsample_segmentation, part) * labels.size / part.size,
        "components": seconds(lambda: cc3d.connected_components(part), 1) * labels.size / part.size,
        "counts": seconds(lambda: fastremap.unique(part, return_counts=True), 1) * labels.size / part.size,
        "histogram": seconds(lambda: [np.bincount(section.ravel(), minlength=256) for section in image], 1),
        "stretch": seconds(lambda: stretch(image[:64]), 1) * len(image) / len(image[:64]),
        "copy": seconds(lambda: files(image, folder), 1),
    }
    n_labels = labels.size
    floors = {
        "mean": kernels["mean"] + n * (decode + code * eighths),
        "mode": kernels["mode"] + n_labels * (decode_labels + code_labels * eighths),
        "copy gzip": n * (decode + code),
        "copy": kernels["copy"],
        "components": kernels["components"] + n_labels * (decode_labels + code_labels),
        "levels": kernels["histogram"] + n * decode,
        "stretch": kernels["stretch"] + n * (decode + code),
        "counts": kernels["counts"] + n_labels * decode_labels,
    }
    print(json.dumps({"floors": floors, "kernels": kernels}))


if __name__ == "__main__":
    main()
