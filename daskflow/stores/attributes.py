"""The names by which writers of HDF5 and zarr state axes and sizes of voxels in the attributes of an array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from daskflow.stores.axes import axis_names
from daskflow.stores.units import as_text

_AXES = (
    *("axes", "axis_names", "axis_order", "axisorder", "axes_order", "axis_labels", "axistags", "dims", "dim_order"),
    *("dimension_order", "dimension_names", "dimension_labels", "_array_dimensions"),
)
_BARE = ("element_size", "voxel_size", "pixel_size", "resolution")
_UNITS = ("units", "unit", "resolution_units", "resolution_unit", "voxel_size_units", "voxel_size_unit")
SIZES = {
    **{f"{name}_um": "um" for name in _BARE},
    **{f"{name}_nm": "nm" for name in _BARE},
    **dict.fromkeys(("resolution", "voxel_size", "element_size", "pixel_size", "voxelsize", "spacing"), ""),
}
_IN_NM = ("resolution", "voxel_size")  # as CREMI, chunkflow and daisy have them


def stated_names(attributes: Mapping[str, Any], ndim: int) -> tuple[tuple[str, ...], str]:
    """Return the names of axes, `ndim` of them if any attribute has so many, and the attribute that states them."""
    keys = _in_any_case(attributes)
    known = [keys[name] for name in _AXES if name in keys]
    stated = [(names, key) for key in known if any(map(str.isalpha, names := axis_names(attributes[key])))]
    return next((one for one in stated if len(one[0]) == ndim), stated[0] if stated else ((), ""))


def stated_size(attributes: Mapping[str, Any]) -> tuple[list[float], Any, str] | None:
    """Return the lengths of a voxel, their units and the attribute that states them; None where none does."""
    keys = _in_any_case(attributes)
    for name, unit in ((name, unit) for name, unit in SIZES.items() if name in keys):
        size = _lengths(attributes[keys[name]])
        if size is not None:
            beside = next((attributes[keys[key]] for key in unit_names(name) if key in keys), None)
            return size, unit or ("nm" if beside is None and name in _IN_NM else beside), keys[name]
    return None


def _in_any_case(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of attributes by those in small letters, where one that has only such comes first."""
    return {key.lower(): key for key in attributes} | {key: key for key in attributes}


def unit_names(name: str) -> tuple[str, ...]:
    """Return the attributes that may hold the units of the size `name`."""
    return (f"{name}_units", f"{name}_unit", *_UNITS)


def _lengths(value: Any) -> list[float] | None:
    """Return three or more numbers, where one alone stands for all axes; None for anything else."""
    found = numbers_in(value, least=1)
    return found * 3 if found is not None and len(found) == 1 else numbers_in(value)


def numbers_in(value: Any, least: int = 3) -> list[float] | None:
    """Return at least so many numbers, as a list or written as text; None for anything else."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str | bytes):
        value = as_text(value).strip("()[]").replace(",", " ").split()
    try:
        numbers: list[float] = np.asarray(value, float).ravel().tolist()
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) >= least else None
