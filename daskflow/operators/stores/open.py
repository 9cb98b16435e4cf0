"""Any stored volume, lazily."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import LayerType
from daskflow.operators import options
from daskflow.stores.axes import find_axes
from daskflow.stores.base import Opening
from daskflow.stores.opening import open_store
from daskflow.volume import Flag, Volume, operator


@runtime_checkable
class DaskArray(Protocol):
    """What `dask.array.Array` is, for recognising it without importing it."""

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the chunks, axis by axis."""

    def __dask_graph__(self) -> Any: ...


@operator()
def open(  # noqa: A001
    url: str | os.PathLike[str] | np.ndarray[Any, Any] | DaskArray,
    *,
    mip: options.Mip = 0,
    fill_missing: bool = False,
    format: str | None = None,  # noqa: A002
    dataset: str | None = None,
    voxel_size: Annotated[Sequence[float] | None, Flag("-v")] = None,
    voxel_offset: Sequence[int] | None = None,
    layer_type: LayerType | None = None,
    axes: str | None = None,
    time: int | None = None,
) -> Volume:
    """Open a stored volume lazily, whatever its format.

    Precomputed, zarr, OME-Zarr, HDF5, TIFF, NIfTI, NRRD, PNG and NPY are recognised by their content; a numpy or dask
    array, zyx or czyx, is taken as it is. The volume keeps global coordinates, voxel size, layer type, channel names
    and the list of mips.

    Args:
        url: path or URL (file, gs, s3, http, memory).
        fill_missing: read chunks that were never written as zeros, and count them, instead of failing.
        format: name of the format, to skip looking.
        dataset: array inside a file that holds several.
        voxel_size: nm per voxel (zyx), where the data do not say.
        voxel_offset: global coordinates of the first voxel (zyx), where the data do not say.
        layer_type: meaning of the voxels, where the data do not say.
        axes: which stored axis is which, e.g. "zyxc" or "tczyx", where the data do not say.
        time: point of the time axis to read, from 0, of data that have several; of a graphene volume the Unix time (s)
            at which its supervoxels are joined.

    Returns:
        A lazy volume.

    Raises:
        StoreNotFoundError: nothing is there, or not that mip.
        UnknownFormatError: what is there is in no known format.
    """
    if isinstance(url, np.ndarray | DaskArray):
        return _from_memory(
            _as_czyx(url, axes, time),
            voxel_size=voxel_size,
            voxel_offset=voxel_offset,
            layer_type=layer_type,
            mip=mip,
            dataset=dataset,
        )
    store = open_store(
        url,
        mip=mip,
        fill_missing=fill_missing,
        format=format,
        dataset=dataset,
        voxel_size=voxel_size,
        voxel_offset=voxel_offset,
        layer_type=layer_type,
        axes=axes,
        time=time,
    )
    return Volume.from_store(store)


def _as_czyx(array: Any, axes: str | None, time: int | None) -> Any:
    """Return an array as zyx or czyx; without `axes` it is that already."""
    if axes is None and time is None:
        return array
    found = find_axes(array.shape, (), "the array", Opening(axes=axes, time=time), keep_channel=True)
    return found.view(array)


def _from_memory(array: Any, *, mip: int, dataset: str | None, **spec: Any) -> Volume:
    if mip or dataset:
        raise ParameterError(f"an array in memory has neither mips nor datasets; got mip={mip}, dataset={dataset!r}")
    given = {name: value for name, value in spec.items() if value is not None}
    return Volume.from_array(array, **given) if isinstance(array, np.ndarray) else Volume.from_dask(array, **given)
