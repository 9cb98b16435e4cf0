"""Layers in napari: what `napari LAYER` asks for through npe2, and a window of volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from daskflow.errors import (
    DaskflowError,
    MissingDependencyError,
    ParameterError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.stores.objects.located import Located, Points
from daskflow.stores.opening import open_store
from daskflow.view.state import value_range
from daskflow.volume import Volume

Layer = tuple[Any, dict[str, Any], str]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """Return what reads a layer, or None of what daskflow does not know, and of several paths at once."""
    if not isinstance(path, str):
        return None
    try:
        open_store(path)
    except (StoreNotFoundError, UnknownFormatError):
        return None
    except DaskflowError:
        return read  # which tells why
    return read


def read(path: str | list[str]) -> list[Layer]:
    """Return the layer at a path or URL as napari takes it."""
    name = str(path).rstrip("/").rpartition("/")[2]
    return [layer_of(name, Volume.from_store(open_store(str(path))))]


def layer_of(name: str, layer: Volume | Located) -> Layer:
    """Return data, options and type of a layer for napari: lazy, with all its levels, in nm where voxels have a size.

    Raises:
        ParameterError: objects other than points.
    """
    if isinstance(layer, Points):
        middle = 0.5 if layer.points.dtype.kind in "iu" else 0
        return layer.points + middle, {"name": name, "scale": layer.voxel_size or (1.0, 1.0, 1.0)}, "points"
    if not isinstance(layer, Volume):
        raise ParameterError(f"{name} is {layer!r}; napari shows volumes and points, neuroglancer shows the others")
    levels = [one.data for one in levels_of(layer)]
    z, y, x = (c + v / 2 for c, v in zip(layer.spec.corner, layer.spec.spacing, strict=True))
    options: dict[str, Any] = {"name": name, "scale": layer.spec.spacing, "translate": (z, y, x)}
    if layer.voxel_size is not None:
        options["units"] = ("nm", "nm", "nm")
    kind = "labels" if layer.spec.kind == "segmentation" else "image"
    if kind == "labels":
        levels = [one[0] if one.ndim == 4 else one for one in levels]
        levels = [one.astype(np.uint8) if one.dtype == bool else one for one in levels]
    else:
        low, high = value_range(layer)
        options |= {"contrast_limits": (low, high)} if low < high else {}
        options |= {"channel_axis": 0} if layer.channels is not None else {}
    several = len(levels) > 1
    return levels if several else levels[0], {**options, "multiscale": several}, kind


def levels_of(volume: Volume) -> list[Volume]:
    """Return a volume and the coarser levels that are stored with it."""
    store = volume.stored_whole
    if store is None:
        return [volume]
    return [volume, *(Volume.from_store(store.with_mip(mip)) for mip in range(store.mip + 1, len(store.mips)))]


def show(layers: Mapping[str, Volume | Located]) -> None:
    """Show layers in a window of napari, and return once it is closed.

    Raises:
        MissingDependencyError: napari is not installed.
        ParameterError: objects other than points.
    """
    shown = [layer_of(name, layer) for name, layer in layers.items()]
    try:
        import napari
    except ImportError as error:
        raise MissingDependencyError.of("napari", "napari") from error
    viewer = napari.Viewer()
    for data, options, kind in shown:
        getattr(viewer, f"add_{kind}")(data, **options)
    napari.run()
