"""Cells that people traced in many small volumes, as one segmentation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox
from daskflow.stores import kvstore
from daskflow.stores.refusals import parse_object
from daskflow.volume import Flag, Volume, operator

_SEGMENTS = 2**16
_CELLS = 2**32
Cells = npt.NDArray[np.uint32]
Path = str | os.PathLike[str]


@operator(takes="labels")
def hypersquare_consensus(
    volume: Volume, *, volume_map: Annotated[Path, Flag("-v")], consensus_map: Annotated[Path, Flag("-c")]
) -> Volume:
    """Name the segments of Eyewire's volumes by the cells that people made of them.

    A segment that the consensus gives to a cell gets the cell's name. Any other gets the number of its volume in the
    upper 16 bits and its own in the lower ones. Background stays 0, and so is what lies in none of the volumes.

    Args:
        volume: segments of all volumes (hypersquares), of 8 or 16 bits, each volume numbered by itself.
        volume_map: path or URL of a JSON file ``{"x0-x1_y0-y1_z0-z1": volume, ...}``: where each volume lies.
        consensus_map: path or URL of a JSON file ``{volume: {cell: [segments]}, ...}``.

    Returns:
        A uint32 segmentation, zyx.

    Raises:
        ParameterError: segments of more than 16 bits; volumes that share voxels; a number that does not fit; or a
            segment that belongs to two cells.
        StoreNotFoundError: there is no such file.
    """
    if volume.dtype.name not in ("uint8", "uint16"):
        raise ParameterError(f"segments of a volume have 8 or 16 bits, not {volume.dtype}; astype -d uint16 makes them")
    consensus = _read(consensus_map)
    places = [
        Place(box, number, _cells_of(consensus.get(str(number), {}), number))
        for box, number in _boxes(_read(volume_map), volume.box)
    ]
    return volume.map_blocks(by_cell, dtype=np.uint32, channels=None, layer_type="segmentation", places=tuple(places))


class Place(NamedTuple):
    """One volume: where it lies, its number, and its segments (first row) with their cells (second row)."""

    box: BoundingBox
    number: int
    cells: npt.NDArray[np.int64]


def by_cell(array: npt.NDArray[Any], box: BoundingBox, places: tuple[Place, ...]) -> Cells:
    """Return the segments of a block (zyx, or czyx with one channel) by the cells that they belong to, zyx."""
    segments = array.reshape(box.shape)
    named = np.zeros(box.shape, np.uint32)
    for place in places:
        shared = place.box.clip(box)
        if not shared.empty:
            at = shared.slices(box)
            named[at] = _names(place)[segments[at]]
            _refuse_ambiguous(place, segments[at], shared)
    return named


def _names(place: Place) -> Cells:
    """Return the name of each segment of a volume."""
    names = np.arange(_SEGMENTS, dtype=np.uint32) | np.uint32(place.number << 16)
    names[0] = 0
    names[place.cells[0]] = place.cells[1]
    return names


def _refuse_ambiguous(place: Place, segments: npt.NDArray[Any], box: BoundingBox) -> None:
    """Refuse a segment without a cell whose name is that of a cell of the same volume."""
    taken = place.cells[1][place.cells[1] >> 16 == place.number] % _SEGMENTS
    free = np.setdiff1d(taken, place.cells[0])
    found = free[np.isin(free, segments)] if len(free) else free
    if len(found):
        raise ParameterError(
            f"segment {found[0]} of volume {place.number} in {box} (z0-z1_y0-y1_x0-x1) belongs to no cell, and would be"
            f" named {place.number << 16 | found[0]}, which is the name of a cell; give the volume another number"
        )


def _read(path: Path) -> dict[str, Any]:
    data = kvstore.read_bytes(os.fspath(path))
    if data is None:
        raise kvstore.missing(os.fspath(path))
    return parse_object(data, kvstore.redact(os.fspath(path)))


def _boxes(volumes: Mapping[str, Any], whole: BoundingBox) -> Iterator[tuple[BoundingBox, int]]:
    """Yield where volumes lie in the whole, and their numbers."""
    found = []
    for text, number in volumes.items():
        flipped = BoundingBox.from_string(text)
        box = BoundingBox(flipped.start[::-1], flipped.stop[::-1]).clip(whole)
        if not box.empty:
            found.append((box, _number(number, 0, _SEGMENTS, f"the volume at {text}")))
    found.sort(key=lambda one: one[0].start)
    for at, (box, number) in enumerate(found):
        for other, its_number in found[at + 1 :]:
            if other.start[0] >= box.stop[0]:
                break
            if not other.clip(box).empty:
                raise ParameterError(
                    f"volumes {number} at {box} and {its_number} at {other} (z0-z1_y0-y1_x0-x1) share voxels"
                )
        yield box, number


def _cells_of(cells: Mapping[str, Any], number: int) -> npt.NDArray[np.int64]:
    """Return the segments of a volume that belong to cells, and their cells, in two rows."""
    owners: dict[int, int] = {}
    for cell, segments in cells.items():
        name = _number(cell, 1, _CELLS, f"a cell of volume {number}")
        for segment in segments:
            one = _number(segment, 1, _SEGMENTS, f"a segment of cell {cell} in volume {number}")
            if owners.setdefault(one, name) != name:
                raise ParameterError(f"segment {one} of volume {number} belongs to both cells {owners[one]} and {name}")
    return np.array([list(owners), list(owners.values())], np.int64)


def _number(value: Any, least: int, end: int, meaning: str) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not least <= number < end:
        raise ParameterError(f"{meaning} is {value!r}, which must be a whole number from {least} to {end - 1}")
    return number
