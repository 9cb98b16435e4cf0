"""Skeletons of the labels in one block, by kimimaro's TEASAR.

Sato et al., "TEASAR: tree-structure extraction algorithm for accurate and robust skeletons", 2000: from a root, paths
run along the middle to the farthest points until all of an object lies within a distance of a path, which is
`scale` times the distance to the surface plus `const`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.geometry import Zyx
from daskflow.operators.objects._holes import without_holes
from daskflow.operators.objects.skeletonize.pieces import Attributes, Piece, join_pieces

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.uint64]

AREA = "cross_sectional_area"


@dataclass(frozen=True)
class Tracing:
    """How the labels of a block are traced: voxel size (nm, zyx), and options of `skeletonize`, lengths in nm."""

    voxel_size: tuple[float, float, float]
    scale: float = 4.0
    const: float = 10.0
    soma_detection: float = 1100.0
    soma_acceptance: float = 3500.0
    soma_scale: float = 1.0
    soma_const: float = 300.0
    max_paths: int | None = None
    fix_branching: bool = True
    fix_borders: bool = True
    fix_avocados: bool = False
    fill_holes: int = 0
    cross_section: int = 0

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of what is known of each vertex, in order."""
        return ("radius", AREA) if self.cross_section else ("radius",)

    @property
    def anisotropy(self) -> tuple[float, float, float]:
        """Voxel size, xyz."""
        z, y, x = self.voxel_size
        return x, y, z

    def teasar(self) -> dict[str, Any]:
        """Return the parameters in kimimaro's words."""
        parameters: dict[str, Any] = {
            "scale": self.scale,
            "const": self.const,
            "pdrf_scale": 100_000,
            "pdrf_exponent": 4,
            "soma_detection_threshold": self.soma_detection,
            "soma_acceptance_threshold": self.soma_acceptance,
            "soma_invalidation_scale": self.soma_scale,
            "soma_invalidation_const": self.soma_const,
        }
        return parameters if self.max_paths is None else {**parameters, "max_paths": self.max_paths}


def check_installed() -> None:
    """Raise unless kimimaro is installed."""
    try:
        import kimimaro  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of("kimimaro", "skeleton") from error


def trace_labels(voxels: Array, first: Zyx, labels: Labels, tracing: Tracing) -> Iterator[tuple[int, Piece]]:
    """Yield the skeletons of some labels of a block (zyx), whose first voxel is counted from the volume's, by label.

    They do not depend on which labels are traced together. A label without any has a single vertex. Labels ascend;
    those that do not occur are passed over.
    """
    check_installed()
    numbers = _renumbered(voxels, labels)
    for one in without_holes(numbers, tracing.fill_holes) if tracing.fill_holes else (numbers,):
        for number, skeleton in _skeletons(one, first, tracing):
            yield int(labels[number - 1]), skeleton


def _renumbered(array: Array, labels: Labels) -> Array:
    """Return the place, from 1, of each voxel's label among `labels`, which ascend; 0 for all others; zyx."""
    import fastremap

    voxels = np.ascontiguousarray(array.view(np.uint8) if array.dtype == bool else array)
    highest = np.iinfo(voxels.dtype).max
    table = {label: number for number, label in enumerate(labels.tolist(), 1) if label <= highest}
    known = fastremap.mask_except(voxels, list(table))
    numbers = np.asarray(fastremap.remap(known, {0: 0} | table, preserve_missing_labels=False, in_place=True))
    return numbers.astype(np.uint16 if len(labels) < 2**16 else np.uint32, copy=False)


def _skeletons(numbers: Array, first: Zyx, tracing: Tracing) -> Iterator[tuple[int, Piece]]:
    import fastremap
    import kimimaro

    found = kimimaro.skeletonize(
        np.asfortranarray(_thickened(numbers).T),
        teasar_params=tracing.teasar(),
        anisotropy=tracing.anisotropy,
        dust_threshold=0,
        progress=False,
        fix_branching=tracing.fix_branching,
        fix_borders=tracing.fix_borders,
        fix_avocados=tracing.fix_avocados,
    )
    size = np.array(tracing.anisotropy)
    for skeleton in found.values():  # back into what was thickened
        skeleton.vertices = np.minimum(skeleton.vertices, (np.array(numbers.shape[::-1]) - 1) * size)
    if tracing.cross_section and found:
        step = np.array(tracing.anisotropy, np.float32)
        kimimaro.cross_sectional_area(
            np.asfortranarray(numbers.T), found, anisotropy=step, smoothing_window=tracing.cross_section, progress=False
        )
    offset = first[::-1]
    if not tracing.fix_avocados:  # then a label may be gone as it is part of another one
        missing = sorted(set(fastremap.unique(numbers).tolist()) - {0, *found})
        yield from _single_vertices(numbers, missing, offset, tracing)
    for number, skeleton in found.items():
        attributes: Attributes = {"radius": np.asarray(skeleton.radius, np.float32)}
        if tracing.cross_section:
            attributes[AREA] = np.asarray(skeleton.cross_sectional_area, np.float32)
        vertices = np.rint(skeleton.vertices / size).astype(np.int32) + np.array(offset, np.int32)
        edges = np.asarray(skeleton.edges, np.uint32).reshape(-1, 2)
        yield number, join_pieces([Piece(vertices, edges, attributes)])


def _thickened(voxels: Array) -> Array:
    """Return voxels with what is one voxel thick repeated, as kimimaro (5.8) finds no borders in such a slab."""
    thin = [int(size == 1) for size in voxels.shape]
    return np.pad(voxels, [(0, more) for more in thin], mode="edge") if any(thin) else voxels


def _single_vertices(inside: Array, numbers: list[int], offset: Zyx, tracing: Tracing) -> Iterator[tuple[int, Piece]]:
    """Yield labels that are too small for a path as one vertex each, on their first voxel in C order (zyx)."""
    if not numbers:
        return
    wanted = np.zeros(int(inside.max()) + 1, bool)
    wanted[numbers] = True
    voxels = np.flatnonzero(wanted[inside])
    found, first = np.unique(inside.ravel()[voxels], return_index=True)
    places = np.stack(np.unravel_index(voxels[first], inside.shape)[::-1], axis=1) + offset
    values = {"radius": min(tracing.voxel_size), AREA: float(np.prod(tracing.voxel_size)) ** (2 / 3)}
    attributes = {name: np.full(1, values[name], np.float32) for name in tracing.attributes}
    for number, place in zip(found.tolist(), places.astype(np.int32), strict=True):
        yield number, Piece(place[None], np.zeros((0, 2), np.uint32), attributes)
