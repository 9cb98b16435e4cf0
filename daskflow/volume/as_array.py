"""A volume where arrays are expected: operators and functions of numpy, the protocol of Dask, and xarray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from daskflow.errors import GeometryError, MissingDependencyError, ParameterError
from daskflow.volume.node import Array

if TYPE_CHECKING:
    import dask.array as da
    import xarray

    from daskflow.geometry import LayerType
    from daskflow.volume.volume import Volume


_OF_VOXELS = (np.where, np.clip)  # which numpy does not have as ufuncs


class AsArray(NDArrayOperatorsMixin):
    """What makes a volume an array to others; `Volume` gives the voxels as `data`.

    Operators, comparisons and functions of single voxels, e.g. ``numpy.sqrt`` and ``numpy.where``, take volumes over
    the same box and numbers, and give a volume. With arrays, and of any other function, it is what `data` gives.
    """

    @property
    def data(self) -> da.Array:
        """The voxels as a dask array."""
        raise NotImplementedError

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__":
            return getattr(ufunc, method)(*(np.asarray(one) if one is self else one for one in inputs), **options)
        if _known(inputs) and not options and ufunc.nout == 1 and ufunc.signature is None:
            return mapped(ufunc, inputs)
        return ufunc(*(one.data if isinstance(one, AsArray) else one for one in inputs), **options)

    def __array_function__(self, function: Any, types: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
        if function in _OF_VOXELS and _known(inputs) and len(inputs) == 3 and not options:
            return mapped(function, inputs)
        return function(*_as_data(inputs), **{name: _as_data(value) for name, value in options.items()})

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise ParameterError(f"{self!r} is neither true nor false; compute() it, or use & | ~ in place of and, or, not")

    def __iter__(self) -> Iterator[da.Array]:
        return iter(self.data)

    def mean(self, **options: Any) -> da.Array:
        """Return the mean over all axes, or some, as `dask.array.mean` gives it; `compute` it."""
        return self.data.mean(**options)

    def min(self, **options: Any) -> da.Array:
        """Return the smallest value as `dask.array.min` gives it; `compute` it."""
        return self.data.min(**options)

    def max(self, **options: Any) -> da.Array:
        """Return the largest value as `dask.array.max` gives it; `compute` it."""
        return self.data.max(**options)

    def sum(self, **options: Any) -> da.Array:
        """Return the sum as `dask.array.sum` gives it; `compute` it."""
        return self.data.sum(**options)

    def histogram(self, bins: Any = 256, range: Any = None, **options: Any) -> tuple[da.Array, da.Array]:  # noqa: A002
        """Return counts and edges of bins as `dask.array.histogram` gives them; `compute` them.

        Args:
            bins: their number, or edges.
            range: lowest and highest edge; by default all values of integers of 8 and 16 bit.
            **options: as for `dask.array.histogram`.
        """
        import dask.array as da

        dtype = self.data.dtype
        if range is None and np.ndim(bins) == 0 and dtype.kind in "iu" and dtype.itemsize <= 2:
            range = (np.iinfo(dtype).min, np.iinfo(dtype).max + 1)  # noqa: A001
        found: tuple[da.Array, da.Array] = da.histogram(self.data, bins, range, **options)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ParameterError("a lazy volume has no array to share; leave copy=False out")
        return np.asarray(self.data.compute(), dtype=dtype)


def _known(inputs: Sequence[Any]) -> bool:
    return all(isinstance(one, AsArray | Number | np.bool) for one in inputs)


def _as_data(given: Any) -> Any:
    """Return what a function is given, dask arrays in place of volumes."""
    if isinstance(given, AsArray):
        return given.data
    return type(given)(map(_as_data, given)) if type(given) in (list, tuple) else given


def mapped(ufunc: Callable[..., Array], inputs: Sequence[Volume | Number]) -> Volume:
    """Return the volume of a function of single voxels, given volumes and numbers in the order of its arguments.

    A result of truth values has no layer type, and any other that of the volumes where they agree; labels that become
    fractions lose it.

    Raises:
        GeometryError: volumes over other boxes, of other voxel sizes, or with channels that do not match.
    """
    volumes = [one for one in inputs if isinstance(one, AsArray)]
    first = volumes[0]
    for other in volumes[1:]:
        if other.box != first.box or not np.allclose(first.spec.ratio(other.spec), 1):
            raise GeometryError(
                f"{ufunc.__name__} of volumes over {first.box} and {other.box}, of {first.spec.size_text} and"
                f" {other.spec.size_text}; crop them to one box of one level"
            )
    try:
        lead = np.broadcast_shapes(*(() if one.channels is None else (one.channels,) for one in volumes))
    except ValueError as error:
        counts = " and ".join(str(one.channels) for one in volumes)
        raise GeometryError(f"{ufunc.__name__} of volumes with {counts} channels; pick as many of each") from error
    dtype = ufunc(*(np.empty(0, one.dtype) if isinstance(one, AsArray) else one for one in inputs)).dtype
    kinds: set[LayerType | None] = {one.layer_type for one in volumes if one.dtype.kind != "b"}
    kind = kinds.pop() if dtype.kind != "b" and len(kinds) == 1 else None
    return first.map_blocks(
        _applied,
        *volumes[1:],
        dtype=dtype,
        channels=lead[0] if lead else None,
        layer_type=None if kind == "segmentation" and dtype.kind == "f" else kind,
        ufunc=ufunc,
        numbers=[None if isinstance(one, AsArray) else one for one in inputs],
    )


def _applied(*arrays: Array, ufunc: Callable[..., Array], numbers: Sequence[Number | None]) -> Array:
    following = iter(arrays)
    result: Array = ufunc(*(next(following) if one is None else one for one in numbers))
    return result


def as_xarray(volume: Volume) -> xarray.DataArray:
    """Return what `Volume.to_xarray` describes."""
    try:
        import xarray
    except ImportError as error:
        raise MissingDependencyError.of("xarray", "xarray") from error
    spec = volume.spec
    places = {axis: np.arange(*ends) for axis, *ends in zip("zyx", spec.box.start, spec.box.stop, strict=True)}
    names = {"c": list(spec.channel_names)} if spec.channel_names else {}
    return xarray.DataArray(
        volume.data,
        dims=tuple("czyx")[-spec.ndim :],
        coords={**names, **places},
        name=spec.kind,
        attrs={} if spec.voxel_size is None else {"voxel_size": spec.voxel_size},
    )
