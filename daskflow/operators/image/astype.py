"""A volume in another dtype."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.operators import options
from daskflow.volume import Volume, operator

Array = npt.NDArray[Any]
_BYTE = 255
Overflow = Literal["error", "clip", "wrap"]


@operator()
def astype(volume: Volume, *, dtype: options.Dtype, overflow: Overflow = "error", unit_range: bool = False) -> Volume:
    """Cast a volume to another dtype, and refuse values that it cannot hold.

    Floats lose their fraction on the way to integers, as in numpy. A segmentation is refused where any value would
    change, since its values are names.

    Args:
        volume: the volume to cast.
        overflow: what becomes of values outside the range of the dtype, NaN included: error refuses them, clip takes
            the nearest value (0 for NaN), wrap does what numpy does.
        unit_range: between floats and uint8, let 0 to 1 be 0 to 255, as chunkflow has it; fractions are cut off. With
            overflow wrap only from floats to uint8.

    Returns:
        A volume of that dtype.

    Raises:
        ParameterError: an unknown dtype or overflow; while it runs, a value that the dtype cannot hold.
    """
    target = _known(dtype, overflow)
    source = volume.dtype
    to_bytes = source.kind == "f" and target == np.uint8
    from_bytes = source == np.uint8 and target.kind == "f" and overflow != "wrap"
    if unit_range and (to_bytes or from_bytes):
        return volume.map_blocks(scale_within, dtype=target, to=target.name, overflow=overflow)
    if overflow == "wrap" or (np.can_cast(source, target, "safe") and source.kind != "f"):
        return volume.astype(target)
    exact = volume.layer_type == "segmentation" and overflow == "error"
    return volume.map_blocks(cast_within, dtype=target, to=target.name, clip=overflow == "clip", exact=exact)


def _known(dtype: Any, overflow: str) -> np.dtype[Any]:
    if overflow not in ("error", "clip", "wrap"):
        raise ParameterError(f"overflow {overflow!r} is none of error, clip, wrap")
    try:
        target: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise ParameterError(f"dtype {dtype!r} is none that numpy knows: {error}") from error
    if target.kind not in "biuf":
        raise ParameterError(f"dtype {target} holds no numbers that voxels can be")
    return target


def scale_within(array: Array, to: str, overflow: Overflow) -> Array:
    """Return floats of 0 to 1 as uint8 of 0 to 255, or the other way round; what is out of range is an error."""
    if to != "uint8":
        scaled: Array = (array / np.float64(_BYTE)).astype(to)
        return scaled
    bad = ~((array >= 0) & (array <= 1))
    if overflow != "clip" and bad.any():
        raise ParameterError(
            f"the value {array[bad].ravel()[0]} is not between 0 and 1, which become 0 and 255 of uint8;"
            " choose overflow='clip', or normalize it first"
        )
    return cast_within(array * array.dtype.type(_BYTE), to, clip=True, exact=False)


def cast_within(array: Array, to: str, clip: bool, exact: bool) -> Array:
    """Return an array in the dtype `to`.

    What that cannot hold is an error, or with `clip` becomes its nearest value; `exact` raises for any value that would
    change.
    """
    target = np.dtype(to)
    if not array.size or target == array.dtype:
        return array
    if target.kind in "iu":
        array = _within(array, target, clip)
    elif target.kind == "f" and array.dtype.kind != "b" and not clip:
        _refuse_infinite(array, target)
    elif target.kind == "f" and array.dtype.kind != "b":
        limits = np.finfo(target)
        array = np.where(np.isfinite(array), np.clip(array, float(limits.min), float(limits.max)), array)
    result: Array = array.astype(target)
    if exact and not np.array_equal(result.astype(array.dtype), array):
        changed = array[result.astype(array.dtype) != array].ravel()[0]
        raise ParameterError(
            f"the label {changed} cannot be held as {target}; choose a wider dtype, or overflow='wrap'"
        )
    return result


def _within(array: Array, target: np.dtype[Any], clip: bool) -> Array:
    """Return an array whose values an integer dtype can hold."""
    limits = np.iinfo(target)
    if array.dtype.kind == "b":
        return array
    if array.dtype.kind == "f":
        return _floats_within(array, target, clip)
    low, high = int(array.min()), int(array.max())
    if limits.min <= low and high <= limits.max:
        return array
    if not clip:
        raise _refusal(low if low < limits.min else high, target)
    own = np.iinfo(array.dtype)
    clipped: Array = np.clip(array, max(limits.min, own.min), min(limits.max, own.max))
    return clipped


def _floats_within(array: Array, target: np.dtype[Any], clip: bool) -> Array:
    limits = np.iinfo(target)
    whole: Array = np.trunc(array.astype(np.result_type(array.dtype, np.float32)))
    # 2^n is a float and the largest integer, 2^n - 1, may be none
    bad = ~((whole >= limits.min) & (whole < float(limits.max + 1)))
    if not bad.any():
        return whole
    if not clip:
        raise _refusal(array[bad].ravel()[0], target)
    below = np.nextafter(whole.dtype.type(limits.max + 1), whole.dtype.type(0))
    clipped: Array = np.clip(np.nan_to_num(whole, nan=0.0), limits.min, min(float(limits.max), float(below)))
    return clipped


def _refuse_infinite(array: Array, target: np.dtype[Any]) -> None:
    finite = array[np.isfinite(array)]
    for value in (finite.min(), finite.max()) if finite.size else ():
        if abs(float(value)) > float(np.finfo(target).max):
            raise _refusal(value, target)


def _refusal(value: Any, target: np.dtype[Any]) -> ParameterError:
    return ParameterError(
        f"the value {value} cannot be held as {target}; choose a wider dtype, or overflow='clip' or 'wrap'"
    )
