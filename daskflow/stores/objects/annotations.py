"""Points and lines as Neuroglancer's precomputed annotations, with a spatial index and indexes by id and by segment.

Format: neuroglancer's ``annotations.md``. Positions are xyz in voxels here, as in the files.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.shards import murmurhash, object_sharding, shard_numbers, write_shard

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.uint64]
Cell = tuple[int, int, int]

ANNOTATIONS = "neuroglancer_annotations_v1"
_LEVELS = 20  # of the spatial index, of which the last takes all that is left


@dataclass(frozen=True, eq=False)
class Annotations:
    """Points, or lines between two points.

    Attributes:
        kind: what they are.
        places: xyz in voxels of each point, or of both ends of each line, one after the other; shape (n, 3 or 6).
        voxel_size: nm (xyz).
        properties: float32 or int32 numbers by name, shape (n,).
        names: of the numbers of a property, from 0 on.
        segments: the label that each belongs to, by relationship; 0 for none.
    """

    kind: Literal["POINT", "LINE"]
    places: Array
    voxel_size: tuple[float, float, float]
    properties: Mapping[str, Array] = field(default_factory=dict)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    segments: Mapping[str, Ids] = field(default_factory=dict)

    @property
    def ids(self) -> Ids:
        """Their ids: 1 and on."""
        return np.arange(1, len(self.places) + 1, dtype=np.uint64)

    @property
    def ends(self) -> Array:
        """The same places, shape (n, 1, 3), or (n, 2, 3) of lines."""
        return self.places.reshape(len(self.places), self.places.shape[1] // 3, 3)

    @property
    def encoded(self) -> npt.NDArray[np.uint8]:
        """Positions and properties as bytes, one row for each."""
        numbers = (values[:, None].astype(values.dtype.newbyteorder("<")) for values in self.properties.values())
        columns = [self.places.astype("<f4"), *numbers]
        return np.concatenate([np.ascontiguousarray(one).view(np.uint8) for one in columns], axis=1)

    @property
    def bounds(self) -> tuple[Array, Array]:
        """The lower and the upper bound: whole voxels around all, at least one along each axis."""
        ends = self.ends.reshape(-1, 3)
        low = np.floor(ends.min(0, initial=np.inf) if len(ends) else np.zeros(3))
        return low, np.maximum(np.floor(ends.max(0, initial=-np.inf)) + 1 if len(ends) else low + 1, low + 1)


def write_annotations(directory: str, annotations: Annotations, *, limit: int) -> None:
    """Write annotations to a directory, of which the ``info`` comes last.

    Args:
        directory: URL.
        annotations: what is written.
        limit: of annotations in a cell of the spatial index, about; more make finer levels.
    """
    rows, ids = annotations.encoded, annotations.ids
    related = [(name, labels.astype(np.uint64)) for name, labels in annotations.segments.items()]
    by_id = {
        int(number): rows[row].tobytes() + b"".join(_one_related(int(labels[row])) for _, labels in related)
        for row, number in enumerate(ids)
    }
    relationships = []
    for name, labels in related:
        order = np.argsort(labels, kind="stable")
        found, starts = np.unique(labels[order], return_index=True)
        groups = zip(found.tolist(), np.split(order, starts[1:]), strict=True)
        lists = {label: _encoded_list(rows, ids, members) for label, members in groups if label}
        sharding = _write_shards(f"{directory}/by_{name}", lists)
        relationships.append({"id": name, "key": f"by_{name}", "sharding": sharding})
    low, high = annotations.bounds
    info = {
        "@type": ANNOTATIONS,
        "dimensions": {axis: [v / 1e9, "m"] for axis, v in zip("xyz", annotations.voxel_size, strict=True)},
        "lower_bound": low.tolist(),
        "upper_bound": high.tolist(),
        "annotation_type": annotations.kind,
        "properties": [_property(name, annotations) for name in annotations.properties],
        "relationships": relationships,
        "by_id": {"key": "by_id", "sharding": _write_shards(f"{directory}/by_id", by_id)},
        "spatial": [_write_level(directory, rows, ids, one) for one in spatial_levels(annotations, limit)],
    }
    write_file(directory, "info", json.dumps(info, indent=1).encode())


def _property(name: str, annotations: Annotations) -> dict[str, Any]:
    found: dict[str, Any] = {"id": name, "type": annotations.properties[name].dtype.name}
    names = annotations.names.get(name)
    return found | ({"enum_values": list(range(len(names))), "enum_labels": list(names)} if names else {})


def _one_related(label: int) -> bytes:
    count = np.array([label != 0], "<u4").tobytes()
    return count + np.array([label] if label else [], "<u8").tobytes()


def _encoded_list(rows: Array, ids: Ids, members: Array) -> bytes:
    """Return several annotations: how many, the rows of each, and their ids."""
    count = np.array([len(members)], "<u8").tobytes()
    return count + rows[members].tobytes() + ids[members].astype("<u8").tobytes()


def _write_shards(directory: str, objects: Mapping[int, bytes]) -> dict[str, Any]:
    """Write objects by number into shards, and return the ``sharding`` JSON."""
    sharding = object_sharding(len(objects), data_encoding="gzip")
    keys = np.array(sorted(objects), np.uint64)
    numbers = shard_numbers(keys, sharding)
    for number in np.unique(numbers).tolist():
        write_shard(directory, number, sharding, ((key, objects[key]) for key in keys[numbers == number].tolist()))
    return sharding


@dataclass(frozen=True, eq=False)
class SpatialLevel:
    """One level of the spatial index.

    Attributes:
        number: 0 is the coarsest.
        shape: cells along each axis (xyz).
        cell: voxels along each axis of a cell (xyz).
        cells: the rows of the annotations of each cell that has some.
    """

    number: int
    shape: Cell
    cell: tuple[float, float, float]
    cells: Mapping[Cell, Array]


def spatial_levels(annotations: Annotations, limit: int) -> Iterator[SpatialLevel]:
    """Yield the levels, coarsest first, until every annotation is in one of them.

    A level has about `limit` annotations in its fullest cell, chosen by a hash of their ids, so evenly and always the
    same. An annotation is in every cell of its level that it goes through.
    """
    low, high = annotations.bounds
    left = np.arange(len(annotations.places))
    order = murmurhash(annotations.ids).astype(np.float64) / 2.0**64  # evenly between 0 and 1
    shape: Cell = (1, 1, 1)
    taken = 0.0
    for number in range(_LEVELS):
        cell = (high - low) / np.array(shape)
        crossed = _crossed(annotations.ends[left], low, cell, shape)
        fullest = max(map(len, crossed.values()), default=1)
        share = 1.0 if number == _LEVELS - 1 else min(1.0, limit / fullest)
        taken += (1 - taken) * share
        emitted = order[left] <= taken
        cells = {place: left[rows[emitted[rows]]] for place, rows in crossed.items()}
        shown = {place: rows[np.argsort(order[rows])] for place, rows in cells.items() if len(rows)}
        yield SpatialLevel(number, shape, tuple(cell.tolist()), shown)
        left = left[~emitted]
        if not len(left):
            return
        size = cell * np.array(annotations.voxel_size)
        x, y, z = (n * 2 if edge > size.max() / 2**0.5 else n for n, edge in zip(shape, size, strict=True))
        shape = (x, y, z)


def _crossed(places: Array, low: Array, cell: Array, shape: Cell) -> dict[Cell, Array]:
    """Return the rows of points or lines, shape (n, ends, 3), that go through each cell (xyz)."""
    scaled = (places - low) / cell
    first = np.clip(np.floor(scaled.min(1)), 0, np.array(shape) - 1).astype(np.int64)
    last = np.clip(np.floor(scaled.max(1)), 0, np.array(shape) - 1).astype(np.int64)
    several = (first != last).any(1)
    rows, cells = [np.flatnonzero(~several)], [first[~several]]
    for row in np.flatnonzero(several).tolist():
        ranges = (range(a, b + 1) for a, b in zip(first[row], last[row], strict=True))
        box = np.array(list(itertools.product(*ranges)))
        inside = box[_meets(scaled[row, 0], scaled[row, 1], box)]
        rows.append(np.full(len(inside), row))
        cells.append(inside)
    names, inverse = np.unique(np.concatenate(cells), axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(np.concatenate(rows)[order], np.flatnonzero(np.diff(inverse[order])) + 1)
    return dict(zip(map(tuple, names.tolist()), parts, strict=False))


def _meets(start: Array, stop: Array, cells: Array) -> npt.NDArray[np.bool_]:
    """Return in which cells of side 1 a line is, by the part of it between the planes of each axis."""
    step = np.where(stop == start, np.finfo(np.float64).tiny, stop - start)
    with np.errstate(over="ignore"):
        near, far = (cells - start) / step, (cells + 1 - start) / step
    enters, leaves = np.minimum(near, far).max(1), np.maximum(near, far).min(1)
    found: npt.NDArray[np.bool_] = (enters <= leaves) & (leaves >= 0) & (enters <= 1)
    return found


def _write_level(directory: str, rows: Array, ids: Ids, level: SpatialLevel) -> dict[str, Any]:
    """Write the cells of a level, and return what the ``info`` says of it."""
    key = f"spatial{level.number}"
    for cell, members in level.cells.items():
        write_file(kvstore.join(directory, key), "_".join(map(str, cell)), _encoded_list(rows, ids, members))
    most = max((len(members) for members in level.cells.values()), default=1)
    return {"key": key, "grid_shape": list(level.shape), "chunk_size": list(level.cell), "limit": most}
