"""The dtypes that options name, and the cast to them."""

from __future__ import annotations

from typing import Literal

from daskflow.volume import Volume

Dtype = Literal["uint8", "uint16", "uint32", "uint64", "float32", "float64"]


def cast_to(volume: Volume, dtype: Dtype | None) -> Volume:
    """Return the volume in another dtype; as it is without one."""
    return volume if dtype is None else volume.astype(dtype)
