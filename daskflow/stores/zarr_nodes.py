"""The arrays and groups of zarr v2 and v3: which files their metadata are in, and what lies below a group."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from daskflow.errors import CorruptChunkError
from daskflow.stores import kvstore
from daskflow.stores.json_objects import parse_object


@dataclass(frozen=True)
class Node:
    """One array or group, as its metadata files have it.

    Attributes:
        url: of the node.
        version: 2 or 3, of the zarr format.
        kind: array or group.
        metadata: content of `zarr.json`, `.zarray` or `.zgroup`, without the attributes.
        attributes: the user's: `attributes` of `zarr.json`, or `.zattrs`.
    """

    url: str
    version: int
    kind: Literal["array", "group"]
    metadata: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)


def read_node(url: str, version: int | None = None) -> Node | None:
    """Return the zarr array or group at a URL, or None when there is neither; `version`, if known, saves requests.

    Raises:
        CorruptChunkError: a metadata file is no JSON object.
    """
    v3 = None if version == 2 else _read_json(kvstore.join(url, "zarr.json"))
    if v3 is not None:
        attributes = _object(v3.pop("attributes", {}))
        return Node(url, 3, "array" if v3.get("node_type") == "array" else "group", v3, attributes)
    if version == 3:
        return None
    array = _read_json(kvstore.join(url, ".zarray"))
    stated = _read_json(kvstore.join(url, ".zattrs"))
    if array is not None:
        return Node(url, 2, "array", array, stated or {})
    group = _read_json(kvstore.join(url, ".zgroup"))
    if group is None and stated is None:
        return None
    return Node(url, 2, "group", group or {"zarr_format": 2}, stated or {})


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def write_node(node: Node) -> None:
    """Store the metadata files of a node; its chunks and children stay as they are.

    Of the two files of version 2 an array gets its attributes first and a group last: a writer that is killed in
    between leaves what is no array yet, or a group to which nothing was added yet.
    """
    if node.version == 3:
        _write_json(kvstore.join(node.url, "zarr.json"), {**node.metadata, "attributes": node.attributes})
        return
    files = {".zattrs": node.attributes, ".zarray": node.metadata}
    if node.kind == "group":
        files = {".zgroup": node.metadata, ".zattrs": node.attributes}
    for name, content in files.items():
        _write_json(kvstore.join(node.url, name), content)


def new_group(url: str, version: int, attributes: dict[str, Any]) -> Node:
    """Return an empty group that is not stored yet."""
    metadata = {"zarr_format": 2} if version == 2 else {"zarr_format": 3, "node_type": "group"}
    return Node(url, version, "group", metadata, attributes)


def arrays_below(group: Node) -> list[str] | None:
    """Return the paths of the arrays below a group: from its consolidated metadata, or from a local directory.

    None means that it cannot be told without listing every chunk in a bucket.
    """
    if group.version == 3:
        consolidated = (group.metadata.get("consolidated_metadata") or {}).get("metadata")
        found = consolidated and [path for path, node in consolidated.items() if node.get("node_type") == "array"]
    else:
        consolidated = (_read_json(kvstore.join(group.url, ".zmetadata")) or {}).get("metadata")
        found = consolidated and [key.removesuffix("/.zarray") for key in consolidated if key.endswith("/.zarray")]
    if found is not None:
        return sorted(found)
    top = kvstore.local_path(group.url)
    return (
        None if top is None else sorted(path.relative_to(top).as_posix() for path in _local_arrays(top, group.version))
    )


def _local_arrays(directory: Path, version: int) -> Iterator[Path]:
    for child in directory.iterdir():
        metadata = child / (".zarray" if version == 2 else "zarr.json")
        if metadata.is_file() and (version == 2 or _is_array(metadata)):
            yield child
        elif child.is_dir():
            yield from _local_arrays(child, version)


def _is_array(metadata: Path) -> bool:
    return (_read_json(str(metadata)) or {}).get("node_type") == "array"


def _read_json(url: str) -> dict[str, Any] | None:
    data = kvstore.read_bytes(url)
    return None if data is None else parse_object(data, kvstore.redact(url), CorruptChunkError)


def _write_json(url: str, content: Mapping[str, Any]) -> None:
    kvstore.write_bytes(url, json.dumps(content, indent=2).encode())
