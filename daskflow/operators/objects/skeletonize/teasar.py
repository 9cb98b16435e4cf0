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
from daskflow.geometry import BoundingBox
from daskflow.operators.objects._holes import without_holes
from daskflow.operators.objects.skeletonize.join import join_pieces
from daskflow.operators.objects.skeletonize.pieces import Attributes, Piece

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.uint64]

AREA = "cross_sectional_area"


@dataclass(frozen=True)
class Tracing:
    """How the labels of a block are traced; lengths in nm.

    Attributes:
        voxel_size: nm, zyx.
        scale: how many times the distance to the surface a path covers around itself.
        const: and how much more.
        soma_detection: objects that are thicker anywhere may be a soma.
        soma_acceptance: objects that are thicker, too, once their holes are filled, are one: paths begin in its middle.
        soma_scale: as `scale`, around the middle of a soma.
        soma_const: as `const`, likewise.
        max_paths: of one object in one block; None without a limit.
        fix_branching: let branches fork where they part.
        fix_borders: end in the middle of the cut where a block cuts an object, in both blocks alike.
        fix_avocados: take a nucleus that has its own label for a part of its soma.
        fill_holes: fill the holes of each label first.
        cross_section: vertices over which the direction of a section is averaged; 0 measures no areas.
    """

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
    fill_holes: bool = False
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


@dataclass(frozen=True)
class Cutout:
    """The voxels that the skeletons of one block are made from.

    Attributes:
        labels: zyx.
        box: where they lie: the block with the one voxel on its high sides that it shares with the next ones.
        block: the block itself.
        whole: the volume.
    """

    labels: Array
    box: BoundingBox
    block: BoundingBox
    whole: BoundingBox


def check_installed() -> None:
    """Raise unless kimimaro is installed.

    Raises:
        MissingDependencyError: it is not.
    """
    try:
        import kimimaro  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of("kimimaro", "skeleton") from error


def trace_labels(cutout: Cutout, labels: Labels, tracing: Tracing) -> Iterator[tuple[int, Piece]]:
    """Yield the skeletons of some labels of a block, by label.

    They do not depend on which labels are traced together. A label without any has a single vertex.

    Args:
        cutout: the voxels.
        labels: which, ascending; those that do not occur are passed over.
        tracing: how.

    Raises:
        MissingDependencyError: kimimaro is not installed.
    """
    check_installed()
    for names, numbers in _passes(_renumbered(cutout.labels, labels), labels, tracing):
        for number, skeleton in _skeletons(cutout, numbers, tracing):
            yield int(names[number - 1]), skeleton


def _renumbered(array: Array, labels: Labels) -> Array:
    """Return the place, from 1, of each voxel's label among `labels`, which ascend; 0 for all others; zyx."""
    import fastremap

    voxels = np.ascontiguousarray(array.view(np.uint8) if array.dtype == bool else array)
    highest = np.iinfo(voxels.dtype).max
    table = {label: number for number, label in enumerate(labels.tolist(), 1) if label <= highest}
    known = fastremap.mask_except(voxels, list(table))
    numbers = np.asarray(fastremap.remap(known, {0: 0} | table, preserve_missing_labels=False, in_place=True))
    return numbers.astype(np.uint16 if len(labels) < 2**16 else np.uint32, copy=False)


def _passes(numbers: Array, labels: Labels, tracing: Tracing) -> Iterator[tuple[Labels, Array]]:
    """Yield the labels as they are traced together: all at once, or, holes filled, without those that fill a hole."""
    for pass_ in without_holes(numbers) if tracing.fill_holes else (numbers,):
        yield labels, pass_


def _skeletons(cutout: Cutout, numbers: Array, tracing: Tracing) -> Iterator[tuple[int, Piece]]:
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
        _measure_sections(numbers, found, tracing)
    offset = [a - b for a, b in zip(cutout.box.start, cutout.whole.start, strict=True)][::-1]
    if not tracing.fix_avocados:  # then a label may be gone as it is part of another one
        yield from _single_vertices(numbers, sorted(set(_present(numbers)) - found.keys()), offset, tracing)
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


def _measure_sections(numbers: Array, found: dict[int, Any], tracing: Tracing) -> None:
    """Give skeletons their cross-sections."""
    import kimimaro

    size = np.array(tracing.anisotropy, np.float32)
    kimimaro.cross_sectional_area(
        np.asfortranarray(numbers.T), found, anisotropy=size, smoothing_window=tracing.cross_section, progress=False
    )


def _present(numbers: Array) -> list[int]:
    import fastremap

    return [number for number in fastremap.unique(numbers).tolist() if number]


def _single_vertices(
    inside: Array, numbers: list[int], offset: list[int], tracing: Tracing
) -> Iterator[tuple[int, Piece]]:
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
