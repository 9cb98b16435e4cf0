"""The forms that values of a precomputed layer's ``info`` must have, sizes and places apart."""

from __future__ import annotations

from typing import Any

from daskflow.stores.compressed import SUFFIXES
from daskflow.stores.json_objects import (
    OBJECT,
    TEXT,
    check_forms,
    is_number,
    list_of,
    one_of,
    parse_object,
    values_of,
    whole,
)

_INFO = {
    "scales": list_of(OBJECT),
    "daskflow": OBJECT,
    "type": TEXT,
    "data_type": TEXT,
    "num_channels": whole(1, 2**31),
}
_EXTRA = {
    "channel_names": list_of(TEXT),
    "compression": values_of(one_of(*SUFFIXES)),
    "background": values_of((is_number, "a number")),
    "stamps": values_of((lambda value: value is None or isinstance(value, str), "text")),
}
_SCALE = {
    "key": TEXT,
    "encoding": TEXT,
    "rois": list_of(list_of(whole(-(2**48), 2**48), 6)),
    "compressed_segmentation_block_size": list_of(whole(1, 2**16), 3),
}


def parse_info(data: bytes, name: str) -> dict[str, Any]:
    """Return a parsed ``info``.

    Args:
        data: the file.
        name: of it, for messages.

    Raises:
        StoreError: it is no JSON, or a value has another form than it must have.
    """
    info = parse_object(data, name)
    check_forms(info, _INFO, name, required=("scales",))
    check_forms(info.get("daskflow", {}), _EXTRA, f"daskflow in {name}")
    for mip, scale in enumerate(info["scales"]):
        segments = str(scale.get("encoding")).lower() == "compressed_segmentation"
        options = ("compressed_segmentation_block_size",) if segments else ()
        check_forms(scale, _SCALE, f"mip {mip} in {name}", required=("key", "encoding", *options))
    return info
