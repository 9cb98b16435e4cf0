"""What changes when stored voxels are rewritten: the states of metadata, provenance, and directories of chunks.

Nothing here lists a bucket or reads a voxel, so a rewrite that touches none of the three goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskflow.errors import StoreAccessError
from daskflow.stores import kvstore

_SPREAD = 32


def digest(content: bytes | str) -> str:
    """Return 16 hexadecimal digits that stand for some bytes or text."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]


def object_state(url: str) -> str | None:
    """Return what changes when the object at `url` is written; None without one.

    That is size and time on a local disk, the generation in GCS and memory, and the ETag, which follows the content,
    in S3 and from web servers (those that give none are not told apart).
    """
    path = kvstore.local_path(url)
    if path is None:
        generation = kvstore.generation(url)
        return None if generation is None else digest(generation)
    try:
        state = path.stat()
    except OSError:
        return None
    return f"{state.st_size} bytes, {state.st_mtime_ns} ns"


def provenance_state(url: str, mip: int) -> str | None:
    """Return what changes when the provenance at `url` does; None without one.

    Entries of its ``processing`` whose `method` names another `mip`, or other `mips`, are passed over.
    """
    try:
        data = kvstore.read_bytes(url)
    except StoreAccessError:
        return None
    if data is None:
        return None
    try:
        content = json.loads(data)
        entries = [entry for entry in content.get("processing", ()) if mip in _mips_of(entry, mip)]
    except (ValueError, AttributeError, TypeError):
        return digest(data)
    if not entries:
        return None
    return digest(json.dumps(entries, sort_keys=True))


def _mips_of(entry: Any, otherwise: int) -> Any:
    method = entry.get("method") if isinstance(entry, dict) else None
    return method.get("mips", [method.get("mip", otherwise)]) if isinstance(method, dict) else [otherwise]


def directory_state(top: Path, depth: int = 0) -> str | None:
    """Return what changes when a chunk is renamed into a directory, as every chunk written is; None without it.

    Chunks are `depth` levels of directories below `top`. Of each level at most 32 directories, evenly spread, are
    looked into, so that a change of single chunks may go unnoticed in a large array.
    """
    try:
        if depth == 0:
            return f"{top.stat().st_mtime_ns} ns"
        level: Sequence[Path] = [top]
        seen: list[tuple[str, int]] = []
        for _ in range(depth):
            level = [child for directory in level for child in _spread(directory)]
            seen += [(child.relative_to(top).as_posix(), child.stat().st_mtime_ns) for child in level]
    except FileNotFoundError:
        return None
    return digest(repr(seen)) if seen else None


def _spread(directory: Path) -> list[Path]:
    found = sorted((child for child in directory.iterdir() if child.is_dir()), key=lambda child: child.name)
    step = max(1, -(-len(found) // _SPREAD))
    return found[::step]
