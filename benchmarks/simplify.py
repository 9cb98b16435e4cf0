"""Simplifying the surfaces of real neurites: time, triangles left, and how far the surface has moved.

    python benchmarks/simplify.py            # labels of 250^3, a few minutes
    python benchmarks/simplify.py --small    # a trial of 48^3, whose figures mean nothing

All start from the same marching cubes. zmesh simplifies as igneous calls it, by a factor of 100 with an error of 40 nm;
fast-simplification and zmesh's simplify_fqmr go to the number of triangles that zmesh reached, label by label; daskflow
stays within 10 nm, and so decides the number itself. Distances are of points on either surface to the other, in nm:
root mean square, that within which 99.9 % are, and the largest; "torn" counts border edges at the seam of a block that
are not as they were, by which neighbouring blocks would fit no longer. CPU seconds are those of this process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.operators.meshing.simplify import simplify
from daskflow.operators.meshing.surface import surfaces

DATA = Path(os.environ.get("DASKFLOW_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
VOXEL = 10.0
MEASURED = 12

Array = np.ndarray[Any, Any]
Mesh = tuple[Array, Array]


def labels_of(size: int) -> Array:
    """Return neurites, or blobs where the FIB-25 files are absent."""
    if (DATA / "fib25_labels.h5").is_file():
        import h5py

        with h5py.File(DATA / "fib25_labels.h5") as file:
            return np.ascontiguousarray(file["main"][:size, :size, :size])
    from scipy.ndimage import gaussian_filter

    values = gaussian_filter(np.random.default_rng(0).random((size,) * 3, np.float32), 4, mode="wrap")
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

    spots, of = sampled(mesh, 300_000, rng)
    corners = mesh[0][mesh[1]]
    tree = cKDTree(np.concatenate([spots, corners.mean(axis=1)]))
    near = np.concatenate([of, np.arange(len(corners))])[tree.query(points, k=8)[1]]
    return np.min([to_triangles(points, corners[near[:, n]]) for n in range(8)], axis=0)


def borders(mesh: Mesh) -> set[tuple[float, ...]]:
    """Return the edges that only one triangle has, by where they are."""
    vertices, faces = np.round(mesh[0], 2), mesh[1].astype(np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    alone = edges[~np.isin(edges[:, 0] << 32 | edges[:, 1], edges[:, 1] << 32 | edges[:, 0])]
    return set(map(tuple, np.hstack([vertices[alone[:, 0]], vertices[alone[:, 1]]]).tolist()))


def methods(mesher: Any, numbers: list[int], raw: dict[int, Mesh]) -> Iterator[tuple[str, Callable[[int], Mesh]]]:
    """Yield each simplifier with the function that gives the simplified surface of a label."""
    import fast_simplification
    import zmesh

    targets: dict[int, int] = {}

    def theirs(number: int) -> Mesh:
        mesh = mesher.get(number, normals=False, reduction_factor=100, max_error=40, voxel_centered=False)
        targets[number] = max(len(mesh.faces), 4)
        return mesh.vertices, mesh.faces

    def fast(number: int) -> Mesh:
        vertices, faces = raw[number]
        points, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), faces.astype(np.int32), target_count=targets[number]
        )
        return points, triangles

    def fqmr(number: int) -> Mesh:
        vertices, faces = raw[number]
        mesh = zmesh.Mesh(vertices.astype(np.float32), faces, None)
        mesh = zmesh.simplify_fqmr(mesh, target_count=targets[number], preserve_border=True)
        return mesh.vertices, mesh.faces

    def ours(number: int) -> Mesh:
        vertices, faces = raw[number]
        points, triangles = simplify(vertices / VOXEL, faces, VOXEL, (VOXEL,) * 3)
        return points * VOXEL, triangles

    assert numbers
    yield "zmesh, as igneous", theirs
    yield "fast-simplification", fast
    yield "zmesh simplify_fqmr", fqmr
    yield "daskflow (pyfqmr)", ours


def main() -> None:
    """Print a row for each simplifier."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny data, to see that it runs")
    size = 48 if parser.parse_args().small else 250
    for package in ("fast_simplification", "pyfqmr", "zmesh"):
        try:
            __import__(package)
        except ImportError:
            print(f"{package} is not installed, 0 simplifiers compared: pip install {package}")
            sys.exit(0)
    import zmesh

    labels = np.pad(labels_of(size), ((1, 0), (1, 0), (1, 0)))  # closed on the low sides, cut as blocks are on the high
    began = time.process_time()
    found = dict(surfaces(labels, (0, 0, 0)))
    print(f"{len(found)} labels, {sum(len(s.faces) for s in found.values()):,} triangles, ", end="")
    print(f"marching cubes {time.process_time() - began:.1f} s")
    mesher = zmesh.Mesher((VOXEL, VOXEL, VOXEL))
    mesher.mesh(labels.T)
    raw = {n: ((s.vertices - 1) / 2 * VOXEL, s.faces) for n, s in found.items()}
    largest = sorted(raw, key=lambda n: -len(raw[n][1]))
    measured = largest[:: max(1, min(len(largest), 60) // MEASURED)][:MEASURED]
    print(f"{'':20}{'CPU s':>8}{'triangles':>11}{'rms':>7}{'99.9 %':>8}{'largest':>9}{'torn':>7}")
    for name, function in methods(mesher, largest, raw):
        began = time.process_time()
        meshes = {number: function(number) for number in largest}
        seconds = time.process_time() - began
        count = sum(len(faces) for _, faces in meshes.values())
        rng, far = np.random.default_rng(0), []
        for number in measured:
            mesh = (np.asarray(meshes[number][0], np.float64), np.asarray(meshes[number][1]))
            if len(mesh[1]):
                far.append(distances(sampled(raw[number], 5000, rng)[0], mesh, rng))
                far.append(distances(sampled(mesh, 5000, rng)[0], raw[number], rng))
        torn = sum(len(borders(raw[n]) - borders(meshes[n])) for n in measured)
        away = np.concatenate(far)
        figures = f"{np.sqrt((away**2).mean()):7.2f}{np.quantile(away, 0.999):8.1f}{away.max():9.1f}{torn:7}"
        print(f"{name:20}{seconds:8.1f}{count:11,}{figures}", flush=True)


if __name__ == "__main__":
    main()
