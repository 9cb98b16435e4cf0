"""JSON from files."""

from __future__ import annotations

import json
from typing import Annotated, Any

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.operators.objects._line_objects import file_to_read, required_bytes
from daskflow.stores import kvstore
from daskflow.stores.objects.located import JsonValue
from daskflow.volume import Flag, operator

_MOST = 64 * 2**20  # bytes; every task that a plugin runs in is sent them


def _of_task(values: dict[str, Any], box: BoundingBox) -> dict[str, Any]:
    return {**values, "file_path": file_to_read(values["file_path"], box, ".json")}


@operator(in_task=_of_task)
def load_json(*, file_path: Annotated[str, Flag("-f")]) -> JsonValue:
    """Load a value from a JSON file, for plugins: `plugin -i chunk,dict`.

    Args:
        file_path: path or URL of a file; in a line of tasks also a directory or prefix, to which the box of the task
            and .json are added.

    Returns:
        The value.

    Raises:
        StoreNotFoundError: there is no such file.
        CorruptChunkError: it does not hold JSON.
        ParameterError: it is larger than 64 MiB.
    """
    url = file_to_read(file_path, None, None)
    text = required_bytes(url)
    if len(text) > _MOST:
        raise ParameterError(
            f"{kvstore.redact(url)} has {len(text):,} bytes, and at most {_MOST:,} are passed on; let the plugin open"
            " the file itself"
        )
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptChunkError(f"{kvstore.redact(url)} holds no JSON that can be read: {error}") from error
    return JsonValue(text)
