"""In which box every label lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.geometry import BoundingBox
from daskflow.scratch.records import Arrays
from daskflow.scratch.tables import How, Table

COLUMNS: dict[str, How] = {"labels": "key", "starts": "min", "stops": "max"}


def boxes_in(table: Table) -> list[BoundingBox]:
    """Return the boxes of all labels in a table of `COLUMNS`, sorted by where they start (zyx)."""
    boxes = []
    for rows in table.tables():
        pairs = zip(rows["starts"].tolist(), rows["stops"].tolist(), strict=True)
        boxes += [BoundingBox((a, b, c), (d, e, f)) for (a, b, c), (d, e, f) in pairs]
    return sorted(boxes, key=lambda box: box.start)


def boxes_of(box: BoundingBox, array: npt.NDArray[Any]) -> Arrays:
    """Return the labels of an array (zyx) that covers `box`, 0 left out, and where they lie."""
    import cc3d
    import fastremap

    numbers, names = fastremap.renumber(array.copy(), preserve_zero=True)
    count = len(names.keys() - {0})
    labels = np.zeros(count + 1, np.uint64)
    for label, number in names.items():
        labels[int(number)] = label
    known = cc3d.statistics(numbers.astype(np.uint32, copy=False), no_slice_conversion=True)
    sides = np.asarray(known["bounding_boxes"][1:], np.int64).reshape(-1, 3, 2) + np.array(box.start)[None, :, None]
    order = np.argsort(labels[1:])
    return {
        "labels": labels[1:][order],
        "starts": sides[order, :, 0],
        "stops": sides[order, :, 1] + 1,
    }
