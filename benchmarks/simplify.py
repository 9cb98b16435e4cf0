"""Simplifying the surfaces of real neurites: time, triangles left, and how well objects are kept.

    python benchmarks/simplify.py            # two crops of 128^3, one of them with anisotropic voxels as well, minutes
    python benchmarks/simplify.py --small    # a trial of 48^3, whose figures mean nothing

All start from the same marching cubes. zmesh simplifies as igneous calls it, by a factor of 100 at most, with the error
that `mesh` is given: the size of a voxel (its cube root), and four times as much; daskflow does what `mesh` does at the
finest level. Volume is the median over labels of what they lost (-) or won, in %; box what the extents of labels lost
along an axis, in nm, median and worst. Distances are of points on either surface to the other, in
nm: root mean square, that within which 99.9 % are, and the farthest. CPU seconds are those of this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.operators.objects.mesh.simplify import finest_error, simplify
from daskflow.operators.objects.mesh.surface import surfaces

DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
CASES = (((0, 0, 0), (10.0, 10.0, 10.0)), ((122, 122, 122), (10.0, 10.0, 10.0)), ((0, 0, 0), (40.0, 16.0, 16.0)))
MEASURED = 8  # labels
LEAST = 1000  # triangles of a label that is looked at

Array = np.ndarray[Any, Any]
Mesh = tuple[Array, Array]


def labels_of(size: int, start: tuple[int, ...]) -> Array:
    """Return neurites, or blobs where the FIB-25 files are absent."""
    if (DATA / "fib25_labels.h5").is_file():
        import h5py

        with h5py.File(DATA / "fib25_labels.h5") as file:
            return np.ascontiguousarray(file["main"][tuple(slice(one, one + size) for one in start)])
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(np.random.default_rng(start[0]).random((size,) * 3, np.float32), 4, mode="wrap")
    return np.digitize(values, np.quantile(values, np.linspace(0.1, 0.9, 9))).astype(np.uint32)


def sampled(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return points spread evenly over a surface, and the triangle that each is on."""
    corners = mesh[0][mesh[1]]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = rng.choice(len(areas), count, p=areas / areas.sum())
    u, v = np.sort(rng.random((2, count, 1)), axis=0)
    a, b, c = (corners[chosen, n] for n in range(3))
    return a * u + b * (v - u) + c * (1 - v), chosen


def to_triangles(points: Array, corners: Array) -> Array:
    """Return the distance of each point to its triangle (n, 3, 3)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    square = np.maximum(np.einsum("ij,ij->i", normal, normal), 1e-30)
    u = np.einsum("ij,ij->i", np.cross(b - a, points - a), normal)
    v = np.einsum("ij,ij->i", np.cross(points - a, c - a), normal)
    inside = (u >= 0) & (v >= 0) & (u + v <= square)
    plane = np.abs(np.einsum("ij,ij->i", points - a, normal)) / np.sqrt(square)
    edges = []
    for one, other in ((a, b), (b, c), (c, a)):
        along = other - one
        share = np.einsum("ij,ij->i", points - one, along) / np.maximum(np.einsum("ij,ij->i", along, along), 1e-30)
        edges.append(np.linalg.norm(points - one - np.clip(share, 0, 1)[:, None] * along, axis=1))
    return np.where(inside, plane, np.min(edges, axis=0))


def distances(points: Array, mesh: Mesh, rng: np.random.Generator) -> Array:
    """Return how far points are from a surface: from those of its triangles whose samples are nearest."""
    from scipy.spatial import cKDTree

    spots, of = sampled(mesh, 60_000, rng)
    corners = mesh[0][mesh[1]]
    tree = cKDTree(np.concatenate([spots, corners.mean(axis=1)]))
    near = np.concatenate([of, np.arange(len(corners))])[tree.query(points, k=8)[1]]
    return np.min([to_triangles(points, corners[near[:, n]]) for n in range(8)], axis=0)


def volume(mesh: Mesh) -> float:
    """Return the volume that a closed surface encloses."""
    a, b, c = (mesh[0][mesh[1][:, n]] - mesh[0].mean(axis=0) for n in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def compare(start: tuple[int, ...], size: int, voxel: tuple[float, float, float], most: int = MEASURED) -> None:
    """Print a row for each simplifier and error."""
    import zmesh

    labels = np.pad(labels_of(size, start), 1)
    nm = np.array(voxel[::-1])
    found = dict(surfaces(labels, (0, 0, 0)))
    mesher = zmesh.Mesher(voxel[::-1])
    mesher.mesh(labels.T)
    raw = {n: ((s.vertices - 1) / 2 * nm, s.faces) for n, s in found.items()}
    kept = sorted((n for n in raw if len(raw[n][1]) >= LEAST), key=lambda n: -len(raw[n][1]))
    measured = kept[:: max(1, min(len(kept), 60) // most)][:most]
    print(f"crop at {start}, voxels of {voxel} nm, {len(kept)} labels, {sum(len(raw[n][1]) for n in kept):,} triangles")
    for error in (1.0, 4.0):
        error *= float(np.prod(nm) ** (1 / 3))
        for name in ("zmesh", "daskflow"):
            began, meshes = time.process_time(), {}
            for number in kept:
                if name == "zmesh":
                    one = mesher.get(number, reduction_factor=100, max_error=error, voxel_centered=False)
                    meshes[number] = (one.vertices.astype(np.float64), one.faces)
                else:
                    surface = found[number]
                    near = finest_error(error, voxel)
                    points, faces = simplify(surface.vertices, surface.faces, near, voxel, unit=0.5)
                    meshes[number] = ((points - 1) / 2 * nm, faces)
            seconds = time.process_time() - began
            print_row(f"{name} {error:.0f} nm", seconds, raw, {n: meshes[n] for n in kept}, measured)


def print_row(name: str, seconds: float, raw: dict[int, Mesh], meshes: dict[int, Mesh], measured: list[int]) -> None:
    """Print how well simplified surfaces keep the objects."""
    rng, far = np.random.default_rng(0), []
    for number in measured:
        far.append(distances(sampled(raw[number], 2000, rng)[0], meshes[number], rng))
        far.append(distances(sampled(meshes[number], 2000, rng)[0], raw[number], rng))
    away = np.concatenate(far)
    lost = [np.ptp(raw[n][0], axis=0) - np.ptp(meshes[n][0], axis=0) for n in meshes]
    change = np.median([volume(meshes[n]) / volume(raw[n]) - 1 for n in meshes])
    count = sum(len(faces) for _, faces in meshes.values())
    print(
        f"  {name:16}{seconds:8.1f}{count:11,}{100 * change:9.2f}{np.median(lost):8.1f}{np.max(lost):8.1f}"
        f"{np.sqrt((away**2).mean()):7.2f}{np.quantile(away, 0.999):8.1f}{away.max():9.1f}",
        flush=True,
    )


def main() -> None:
    """Print a table for each crop and voxel size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny data, to see that it runs")
    small = parser.parse_args().small
    for package in ("numba", "zmesh"):
        try:
            __import__(package)
        except ImportError:
            print(f"{package} is not installed, 0 simplifiers compared: pip install {package}")
            sys.exit(0)
    print(f"  {'':16}{'CPU s':>8}{'triangles':>11}{'volume %':>9}{'box':>8}{'worst':>8}", end="")
    print(f"{'rms':>7}{'99.9 %':>8}{'farthest':>9}")
    for start, voxel in CASES[:1] if small else CASES:
        compare(start, 48 if small else 128, voxel, 1 if small else MEASURED)


if __name__ == "__main__":
    main()
