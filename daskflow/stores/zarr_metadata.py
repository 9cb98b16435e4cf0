"""Zarr v2 and v3 nodes: where their metadata are, what they say of voxels, and those of new arrays; no voxels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from daskflow.errors import CorruptChunkError, ParameterError, UnknownFormatError
from daskflow.stores import kvstore
from daskflow.stores.base import NUMBERS, Layout
from daskflow.stores.refusals import parse_object, refuse_cast

_READ_V2 = ("blosc", "bz2", "gzip", "zlib", "zstd")
_READ_V3 = ("blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd")
_BLOSC = ("id", "cname", "clevel", "shuffle", "blocksize")
_LEVELS = {"zstd": 1, "gzip": 1, "blosc": 5}


@dataclass(frozen=True)
class Node:
    """One array or group of zarr 2 or 3: metadata of `zarr.json`, `.zarray` or `.zgroup`, and the user's attributes."""

    url: str
    version: int
    kind: Literal["array", "group"]
    metadata: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)


def read_node(url: str, version: int | None = None) -> Node | None:
    """Return the zarr array or group at a URL, or None when there is neither; `version`, if known, saves requests."""
    v3 = None if version == 2 else _read_json(kvstore.join(url, "zarr.json"))
    if v3 is not None:
        attributes = as_object(v3.pop("attributes", {}))
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


def as_object(value: Any) -> dict[str, Any]:
    """Return a JSON object, an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def write_node(node: Node) -> None:
    """Store the metadata files of a node; its chunks and children stay as they are.

    Of the two files of version 2 an array gets its attributes first and a group last: a writer that is killed in
    between leaves what is not an array yet, or a group to which nothing was added yet.
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

    None means that only listing every chunk would show it in a bucket.
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
        if metadata.is_file() and (version == 2 or (_read_json(str(metadata)) or {}).get("node_type") == "array"):
            yield child
        elif child.is_dir():
            yield from _local_arrays(child, version)


def _read_json(url: str) -> dict[str, Any] | None:
    data = kvstore.read_bytes(url)
    return None if data is None else parse_object(data, kvstore.redact(url), CorruptChunkError)


def _write_json(url: str, content: Mapping[str, Any]) -> None:
    kvstore.write_bytes(url, json.dumps(content, indent=2).encode())


def chunk_depth(metadata: Mapping[str, Any]) -> int:
    """Return how many levels of directories are between an array and its chunks, from its metadata."""
    axes = len(metadata["shape"])
    if metadata.get("zarr_format", 2) == 2:
        return axes - 1 if metadata.get("dimension_separator", ".") == "/" else 0
    encoding = metadata["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    if separator != "/":
        return 0
    return axes if default else axes - 1


@dataclass(frozen=True)
class ArrayShape:
    """What the metadata of an array say of its voxels, in stored axis order; the byte order is native.

    A chunk is compressed as one, a shard is stored as one object; it is None when that is the chunk.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk: tuple[int, ...]
    shard: tuple[int, ...] | None


def array_shape(node: Node) -> ArrayShape:
    """Return what the metadata of an array node say."""
    try:
        found = _shape_v2(node) if node.version == 2 else _shape_v3(node)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise CorruptChunkError(f"the metadata of {kvstore.redact(node.url)} are incomplete: {error!r}") from None
    if not len(found.shape) == len(found.chunk) == len(found.shard or found.chunk):
        raise CorruptChunkError(f"{kvstore.redact(node.url)} has shape {found.shape} with chunks {found.chunk}")
    return found


def plain_metadata(node: Node) -> dict[str, Any]:
    """Return the metadata of an array as tensorstore takes them: shorthand spelt out, options without effect gone."""
    try:
        return _plain_v2(node) if node.version == 2 else _plain_v3(node)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptChunkError(f"the metadata of {kvstore.redact(node.url)} are incomplete: {error!r}") from None


def _plain_v2(node: Node) -> dict[str, Any]:
    """Drop what tensorstore refuses although it changes nothing that is decoded: `typesize` and `checksum`."""
    metadata = dict(node.metadata)
    if metadata.get("filters"):
        raise UnknownFormatError(
            f"{kvstore.redact(node.url)} has zarr v2 filters {metadata['filters']}, which are not read"
        )
    compressor = metadata.get("compressor")
    if compressor is None:
        return metadata
    name = compressor["id"]
    _check_codec(name, _READ_V2, node.url)
    kept = {"zstd": ("id", "level"), "blosc": _BLOSC}.get(name, tuple(compressor))
    metadata["compressor"] = {key: compressor[key] for key in kept if key in compressor}
    return metadata


def _plain_v3(node: Node) -> dict[str, Any]:
    metadata = dict(node.metadata)
    for key in ("chunk_grid", "chunk_key_encoding"):
        metadata[key] = _named(metadata[key])
    metadata["codecs"] = _plain_codecs(metadata["codecs"], len(metadata["shape"]), node.url)
    if metadata.get("storage_transformers") == []:
        del metadata["storage_transformers"]
    return metadata


def _named(entry: Any) -> dict[str, Any]:
    """Return an extension point of zarr v3 as an object; its name alone is the shorthand for one without options."""
    return {"name": entry} if isinstance(entry, str) else dict(entry)


def _plain_codecs(codecs: Sequence[Any], ndim: int, url: str) -> list[dict[str, Any]]:
    plain = []
    for codec in map(_named, codecs):
        _check_codec(codec["name"], _READ_V3, url)
        options = dict(codec.get("configuration") or {})
        if codec["name"] == "transpose":
            order = options["order"]
            if isinstance(order, str):
                options["order"] = {"C": list(range(ndim)), "F": list(reversed(range(ndim)))}[order]
        elif codec["name"] == "sharding_indexed":
            for key in ("codecs", "index_codecs"):
                options[key] = _plain_codecs(options[key], ndim + (key == "index_codecs"), url)
        plain.append({"name": codec["name"], **({"configuration": options} if options else {})})
    return plain


def _check_codec(name: Any, known: Sequence[str], url: str) -> None:
    if name not in known:
        raise UnknownFormatError(f"{kvstore.redact(url)} is compressed by {name!r}; known codecs: {', '.join(known)}")


def _shape_v2(node: Node) -> ArrayShape:
    text = node.metadata["dtype"]
    try:
        dtype = np.dtype(text).newbyteorder("=") if isinstance(text, str) else np.dtype(object)
    except TypeError:
        dtype = np.dtype(object)
    return ArrayShape(
        _sizes(node.metadata["shape"]), _numeric(dtype, text, node.url), _sizes(node.metadata["chunks"], least=1), None
    )


def _shape_v3(node: Node) -> ArrayShape:
    text = node.metadata["data_type"]
    dtype = _numeric(np.dtype(text) if text in NUMBERS else np.dtype(object), text, node.url)
    metadata = plain_metadata(node)
    grid = metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise UnknownFormatError(
            f"{kvstore.redact(node.url)} has a chunk grid {grid['name']!r}; only regular ones are read"
        )
    chunk = _sizes(grid["configuration"]["chunk_shape"], least=1)
    shard = None
    order = tuple(range(len(chunk)))
    for codec in metadata["codecs"]:
        options = codec.get("configuration", {})
        if codec["name"] == "transpose":
            order = tuple(order[i] for i in options["order"])
        elif codec["name"] == "sharding_indexed":
            inner = dict(zip(order, _sizes(options["chunk_shape"], least=1), strict=True))
            chunk, shard = tuple(inner[axis] for axis in range(len(chunk))), chunk
    return ArrayShape(_sizes(metadata["shape"]), dtype, chunk, shard)


def _sizes(values: Any, least: int = 0) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(n) is int and least <= n < 2**63 for n in values):
        raise ValueError(f"{values!r} are not sizes")
    return tuple(values)


def _numeric(dtype: np.dtype[Any], text: object, url: str) -> np.dtype[Any]:
    if dtype.name not in NUMBERS:
        raise UnknownFormatError(
            f"{kvstore.redact(url)} holds {text}, which is not a voxel type; supported dtypes: {', '.join(NUMBERS)}"
        )
    return dtype


def array_metadata(
    version: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    chunk: Sequence[int],
    shard: Sequence[int] | None,
    layout: Layout,
) -> dict[str, Any]:
    """Return the metadata of a new array, compressed as `layout` says (zstd, level 1, with checksums by default)."""
    refuse_cast(dtype, NUMBERS, f"zarr v{version}")
    fill: object = False if dtype.kind == "b" else 0.0 if dtype.kind == "f" else 0
    if version == 2:
        if shard is not None:
            raise ParameterError(f"zarr v2 has no shards (asked for {tuple(shard)}); drop them or write zarr v3")
        return {
            "zarr_format": 2,
            "shape": list(shape),
            "chunks": list(chunk),
            "dtype": dtype.newbyteorder("<").str,
            "compressor": _compressor_v2(layout),
            "fill_value": fill,
            "order": "C",
            "filters": None,
            "dimension_separator": "/",
        }
    codecs = _codecs_v3(layout, dtype)
    if shard is not None:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        inner = {"chunk_shape": list(chunk), "codecs": codecs, "index_codecs": index, "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shard or chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": codecs,
    }


def codec_of(metadata: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return the codec of an array and its level, as `array_metadata` takes them; None for one it does not write."""
    if metadata.get("zarr_format", 2) == 2:
        compressor = metadata.get("compressor")
        found = [] if compressor is None else [(compressor.get("id"), compressor)]
    else:
        codecs = metadata["codecs"]
        inner = next((c["configuration"]["codecs"] for c in codecs if c["name"] == "sharding_indexed"), codecs)
        ignored = ("bytes", "crc32c", "transpose")
        found = [(c["name"], c.get("configuration", {})) for c in inner if c["name"] not in ignored]
    if not found:
        return "raw", None
    name, options = found[0]
    if len(found) > 1 or name not in _LEVELS:
        return None, None
    level = options.get("clevel" if name == "blosc" else "level", _LEVELS[name])
    return name, level if 0 <= level <= 9 or (name == "zstd" and level <= 22) else None


def _codec(layout: Layout) -> tuple[str, int]:
    name = layout.encoding or layout.compression or "zstd"
    name = "raw" if name == "none" else name
    if name != "raw" and name not in _LEVELS:
        raise ParameterError(f"zarr has no codec {name!r} here; use {', '.join(_LEVELS)} or raw")
    level = _LEVELS.get(name, 0) if layout.quality is None else layout.quality
    highest = 22 if name == "zstd" else 9
    if not 0 <= level <= highest:
        raise ParameterError(f"level {level} of {name} must be 0 to {highest}")
    return name, level


def _compressor_v2(layout: Layout) -> dict[str, Any] | None:
    name, level = _codec(layout)
    if name == "raw":
        return None
    if name == "blosc":
        return {"id": "blosc", "cname": "zstd", "clevel": level, "shuffle": 1, "blocksize": 0}
    return {"id": name, "level": level}


def _codecs_v3(layout: Layout, dtype: np.dtype[Any]) -> list[dict[str, Any]]:
    name, level = _codec(layout)
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if name == "zstd":
        return [*codecs, {"name": "zstd", "configuration": {"level": level, "checksum": True}}]
    if name == "gzip":
        return [*codecs, {"name": "gzip", "configuration": {"level": level}}]
    if name == "blosc":
        shuffle = {"shuffle": "shuffle", "typesize": dtype.itemsize, "blocksize": 0}
        codecs.append({"name": "blosc", "configuration": {"cname": "zstd", "clevel": level, **shuffle}})
    return [*codecs, {"name": "crc32c"}]
