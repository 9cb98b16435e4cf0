"""What plugin files get and return: an array that knows where it lies, with the names that chunkflow's has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from daskflow.errors import MissingDependencyError, ParameterError
from daskflow.operators.tasks.plugin.cartesian import BoundingBox, Cartesian, to_cartesian

Array = np.ndarray[Any, Any]


class Chunk(NDArrayOperatorsMixin):
    """An array (zyx or czyx) that knows where it lies; numpy's functions and arithmetic take it.

    What else is asked of it, e.g. ``mean()``, is asked of its array. Slices of it are plain arrays.

    Attributes:
        array: the plain array; another may be put in its place.
        placed: whether it was given an offset.
    """

    def __init__(
        self,
        array: Any,
        voxel_offset: Sequence[int] | None = None,
        voxel_size: Sequence[float] | None = None,
        layer_type: str | None = None,
    ) -> None:
        other = array if isinstance(array, Chunk) else None
        self.array: Array = np.asarray(array)
        if self.array.ndim not in (3, 4):
            raise ParameterError(f"a chunk is zyx or czyx, not of shape {self.array.shape}")
        offset = other.voxel_offset if other is not None and voxel_offset is None else voxel_offset
        self.placed = offset is not None
        self.voxel_offset = (0, 0, 0) if offset is None else offset
        self.voxel_size = other.voxel_size if other is not None and voxel_size is None else voxel_size
        self._layer_type = layer_type

    def __getattr__(self, name: str) -> Any:
        if name == "array" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.array, dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if "out" in options:
            options["out"] = tuple(one.array if isinstance(one, Chunk) else one for one in options["out"])
        arrays = [one.array if isinstance(one, Chunk) else one for one in inputs]
        result = getattr(ufunc, method)(*arrays, **options)
        if isinstance(result, tuple):
            return tuple(self._like(one) for one in result)
        return self._like(result)

    def _like(self, result: Any) -> Any:
        """Return an array of one more or less dtype as a chunk in the same place; anything else as it is."""
        if isinstance(result, np.ndarray) and result.ndim in (3, 4):
            kept = self._layer_type if result.dtype == self.dtype else None
            return type(self)._of(result, self.voxel_offset, self.voxel_size, kept)
        return result

    @classmethod
    def _of(cls, array: Array, offset: Any, size: Any, layer_type: str | None) -> Self:
        chunk = cls(array, offset, size)
        chunk._layer_type = layer_type
        return chunk

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.array[index] = np.asarray(value)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Chunk):
            return self.voxel_offset == other.voxel_offset and np.array_equal(self.array, other.array)
        return self.array == other

    __hash__ = None  # type: ignore[assignment]  # as it can be changed

    def __repr__(self) -> str:
        return f"Chunk({self.dtype} {self.shape}, voxel_offset={self.voxel_offset}, voxel_size={self.voxel_size})"

    @classmethod
    def from_array(
        cls, array: Array, bbox: BoundingBox, voxel_size: Sequence[float] | None = None, **options: Any
    ) -> Self:
        """Return the chunk of an array that fills a box."""
        return cls(array, bbox.start, voxel_size, **options)

    @classmethod
    def from_bbox(cls, bbox: BoundingBox, dtype: Any = np.uint8, voxel_size: Sequence[float] | None = None) -> Self:
        """Return a chunk of zeros that fills a box."""
        return cls(np.zeros(bbox.shape, dtype), bbox.start, voxel_size)

    @property
    def voxel_offset(self) -> Cartesian:
        """Global coordinates of the first voxel (zyx)."""
        return self._voxel_offset

    @voxel_offset.setter
    def voxel_offset(self, value: Sequence[int]) -> None:
        self._voxel_offset = Cartesian(*value)

    @property
    def voxel_size(self) -> Cartesian | None:
        """Nm per voxel (zyx); None when unknown."""
        return self._voxel_size

    @voxel_size.setter
    def voxel_size(self, value: Sequence[float] | None) -> None:
        self._voxel_size = to_cartesian(value)

    @property
    def layer_type(self) -> str:
        """image, segmentation, affinity_map, probability_map or unknown; what the array looks like unless stated."""
        if self._layer_type is not None:
            return self._layer_type
        if self.ndim == 3 and self.dtype == np.uint8:
            return "image"
        if self.ndim == 3 and self.dtype.kind in "uib":
            return "segmentation"
        if self.dtype == np.float32 and self.array.size and self.array.min() >= 0 and self.array.max() <= 1:
            return "probability_map"
        return "affinity_map" if self.is_affinity_map else "unknown"

    @layer_type.setter
    def layer_type(self, value: str | None) -> None:
        self._layer_type = value

    @property
    def stated_layer_type(self) -> str | None:
        """What was stated."""
        return self._layer_type

    @property
    def is_image(self) -> bool:
        """Whether it holds intensities."""
        return self.layer_type == "image"

    @property
    def is_segmentation(self) -> bool:
        """Whether it holds labels."""
        return self.layer_type == "segmentation"

    @property
    def is_affinity_map(self) -> bool:
        """Whether it has three channels of float32."""
        return self.ndim == 4 and len(self.array) == 3 and self.dtype == np.float32

    @property
    def is_probability_map(self) -> bool:
        """Whether it holds float32 between 0 and 1."""
        return self.dtype == np.float32 and bool(self.array.min() >= 0 and self.array.max() <= 1)

    @property
    def properties(self) -> dict[str, Any]:
        """Offset, voxel size and layer type, as far as they are known."""
        found = {"voxel_offset": self.voxel_offset, "voxel_size": self.voxel_size, "layer_type": self._layer_type}
        return {name: value for name, value in found.items() if value is not None}

    @properties.setter
    def properties(self, value: dict[str, Any]) -> None:
        self.set_properties(value)

    def set_properties(self, properties: dict[str, Any]) -> None:
        """Take offset, voxel size and layer type from what `properties` gives."""
        for name, value in properties.items():
            setattr(self, name, value)
        self.placed = self.placed or "voxel_offset" in properties

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return np.asarray(self.array).dtype

    @property
    def ndim(self) -> int:
        """3 or 4."""
        return self.array.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return np.shape(self.array)

    @property
    def start(self) -> Cartesian:
        """Where it begins (zyx)."""
        return self.voxel_offset

    @property
    def stop(self) -> Cartesian:
        """Where it ends (zyx), outside."""
        return self.voxel_offset + self.shape[-3:]

    voxel_stop = stop

    @property
    def bbox(self) -> BoundingBox:
        """Where it lies."""
        return BoundingBox(self.start, self.stop)

    bounding_box = bbox

    @property
    def ndoffset(self) -> tuple[int, ...]:
        """The offset, with a 0 before it for channels."""
        return (0,) * (self.ndim - 3) + tuple(self.voxel_offset)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Global slices, that of the channels first if there are any."""
        return tuple(slice(a, a + n) for a, n in zip(self.ndoffset, self.shape, strict=True))

    def clone(self) -> Self:
        """Return a copy."""
        return type(self)._of(self.array.copy(), self.voxel_offset, self.voxel_size, self._layer_type)

    def astype(self, dtype: Any) -> Self:
        """Return a copy in another dtype."""
        found: Self = self._like(self.array.astype(dtype))
        return found

    def transpose(self, only_array: bool = False) -> Chunk:
        """Return it with all axes in reverse order, and its offset and voxel size too unless `only_array`."""
        size = self.voxel_size
        if only_array:
            return Chunk(self.array.transpose(), self.voxel_offset, size)
        return Chunk(self.array.transpose(), self.voxel_offset.inverse, None if size is None else size.inverse)

    def cutout(self, place: BoundingBox | Sequence[slice]) -> Chunk:
        """Return the part in a box, or in global slices."""
        slices = list(getattr(place, "slices", place))[-3:]
        z, y, x = (slice(one.start - a, one.stop - a) for one, a in zip(slices, self.voxel_offset, strict=True))
        return Chunk._of(self.array[..., z, y, x], [one.start for one in slices], self.voxel_size, self._layer_type)

    def crop_margin(self, margin_size: Sequence[int] | None = None, output_bbox: BoundingBox | None = None) -> Chunk:
        """Return it without a margin of three or six numbers (low z, y, x, high z, y, x), or what lies in a box."""
        if margin_size:
            return self.cutout(BoundingBox(self.start + margin_size[:3], self.stop - Cartesian(*margin_size[-3:])))
        if output_bbox is None:
            raise ParameterError("crop_margin takes a margin or a box")
        return self.cutout(output_bbox)

    def squeeze_channel(self, axis: int = 0) -> Chunk:
        """Return it without a channel axis of one."""
        return Chunk._of(np.squeeze(self.array, axis), self.voxel_offset, self.voxel_size, self._layer_type)


class ProbabilityMap(Chunk):
    """A chunk of floats."""

    @classmethod
    def from_chunk(cls, chunk: Chunk) -> ProbabilityMap:
        """Return the same as a probability map."""
        return cls(chunk.array, chunk.voxel_offset, chunk.voxel_size)

    def detect_points(
        self,
        min_distance: int = 1,
        threshold_rel: float = 0.3,
        exclude_border: bool = True,
        num_peaks: float = np.inf,
        return_confidences: bool = True,
    ) -> Any:
        """Return the peaks (zyx, global) above the mean and their heights as a share of the highest; None without any.

        The mean and the highest value are those of the chunk; for those of a volume use the operator detect-points.
        """
        try:
            from skimage.feature import peak_local_max
        except ImportError as error:
            raise MissingDependencyError("detect_points needs scikit-image: pip install scikit-image") from error
        above = np.maximum(self.array - self.array.mean(), 0)
        above = above / (above.max() or 1)
        peaks: Callable[..., Array] = peak_local_max
        found = peaks(
            above,
            min_distance=int(min_distance),
            threshold_abs=threshold_rel,
            exclude_border=exclude_border,
            num_peaks=num_peaks,
        )
        if not len(found):
            return (None, None) if return_confidences else None
        points = found + np.array(self.voxel_offset)
        return (points, above[tuple(found.T)]) if return_confidences else points


class PointCloud:
    """Points (n, 3) in voxels (zyx), and nm per voxel, None if that is not known."""

    def __init__(self, points: Array, voxel_size: Sequence[float] | None) -> None:
        self.points = points
        self.voxel_size = to_cartesian(voxel_size)
