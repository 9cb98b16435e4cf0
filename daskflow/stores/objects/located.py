"""What a line of commands passes on beside volumes: points, synapses, skeletons, JSON and boxes, all in memory."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VoxelSize

if TYPE_CHECKING:
    from daskflow.stores.objects.skeleton_files import Skeleton

Array = npt.NDArray[Any]


class Passed(ABC):
    """What a line of commands passes on beside volumes.

    Attributes:
        line_name: what a line of commands calls it unless it says otherwise.
    """

    line_name: ClassVar[str]


@dataclass(frozen=True)
class TaskBox(Passed):
    """The box of the task that a line works on."""

    line_name: ClassVar[str] = "bbox"
    box: BoundingBox


@dataclass(frozen=True)
class JsonValue(Passed):
    """A JSON value, kept as text, so that nobody changes the value that others get."""

    line_name: ClassVar[str] = "dict"
    text: bytes

    def __repr__(self) -> str:
        return f"<JsonValue of {len(self.text):,} bytes>"

    @property
    def value(self) -> Any:
        """The value, parsed each time."""
        return json.loads(self.text)


class Located(Passed):
    """Objects at places in space.

    Attributes:
        line_name: what a line of commands calls them unless it says otherwise.
        voxel_size: nm (zyx) of the voxels in which places are counted; None if it is not known.
    """

    line_name: ClassVar[str] = "syns"
    voxel_size: VoxelSize | None

    @property
    @abstractmethod
    def places(self) -> Array:
        """Where all points are, in voxels: shape (n, 3), zyx."""

    @property
    def box(self) -> BoundingBox:
        """The smallest box of voxels that holds all points; an empty one at the origin if there are none."""
        if not len(self.places):
            return BoundingBox((0, 0, 0), (0, 0, 0))
        cells = np.floor(self.places).astype(np.int64)
        return BoundingBox(tuple(cells.min(0).tolist()), tuple((cells.max(0) + 1).tolist()))


@dataclass(frozen=True, eq=False)
class Points(Located):
    """Points in space.

    Attributes:
        points: shape (n, 3), zyx in voxels.
        confidences: of each, from 0 to 1, or None.
    """

    line_name: ClassVar[str] = "point_cloud"
    points: Array
    voxel_size: VoxelSize | None = None
    confidences: Array | None = None

    def __post_init__(self) -> None:
        check_places(self.points, "points")

    def __repr__(self) -> str:
        return f"<Points {len(self.points):,} in {self.box}>"

    @property
    def places(self) -> Array:
        return self.points


@dataclass(frozen=True, eq=False)
class SkeletonSet(Located, Mapping[int, "Skeleton"]):
    """Skeletons by label; their vertices are xyz in nm, so that a voxel is 1 nm here."""

    line_name: ClassVar[str] = "skels"
    skeletons: Mapping[int, Skeleton]
    voxel_size: VoxelSize | None = (1.0, 1.0, 1.0)

    def __repr__(self) -> str:
        return f"<SkeletonSet of {len(self.skeletons):,} in {self.box} nm>"

    @property
    def places(self) -> Array:
        return np.concatenate([np.zeros((0, 3)), *(one.vertices for one in self.values())])[:, ::-1]

    def __getitem__(self, label: int) -> Skeleton:
        return self.skeletons[label]

    def __iter__(self) -> Iterator[int]:
        return iter(self.skeletons)

    def __len__(self) -> int:
        return len(self.skeletons)


def check_places(places: Array, name: str, columns: int = 3) -> None:
    """Raise unless an array holds finite numbers in rows of so many columns.

    Raises:
        ParameterError: it does not.
    """
    if places.ndim != 2 or places.shape[1] != columns or places.dtype.kind not in "iuf":
        raise ParameterError(f"{name} have shape {places.shape}, {places.dtype}; give numbers of shape (n, {columns})")
    if not np.isfinite(places).all():
        raise ParameterError(f"{name} hold {places[~np.isfinite(places).all(1)][0].tolist()}; give finite numbers")
