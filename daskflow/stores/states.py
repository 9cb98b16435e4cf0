"""The provenance of a layer, and what else changes when its voxels are rewritten: metadata, directories of chunks.

Nothing here lists a bucket or reads a voxel, so a rewrite that touches none of the three goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskflow.errors import StoreAccessError
from daskflow.redaction import redacted
from daskflow.stores import kvstore

_SPREAD = 32


def digest(content: bytes | str) -> str:
    """Return 16 hexadecimal digits that stand for some bytes or text."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]


def object_state(url: str) -> str | None:
    """Return what changes when the object at `url` is written; None without one.

    That is size and time on a local disk, the generation in GCS and memory, and the ETag, which follows the content,
    in S3 and from web servers (those that give none are treated as equal).
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


def notes_at(target: str) -> list[dict[str, Any]]:
    """Return the records in a provenance, as `Store.provenance_url` names it, the oldest first."""
    known = _known(kvstore.read_bytes(target)) or {}
    methods = [entry.get("method") for entry in known.get("processing", []) if isinstance(entry, dict)]
    return [method for method in methods if isinstance(method, dict)]


def add_note(target: str, record: dict[str, Any]) -> None:
    """Add a record to a provenance, in place of the one that the same run has added.

    It has user, finished and run among its JSON values. What is there but has another form is kept as ``<file>.old``.
    """
    data = kvstore.read_bytes(target)
    known = _known(data)
    if known is None:
        kvstore.write_bytes(f"{target}.old", data or b"")
        known = {}
    entry = redacted({"method": record, "by": record["user"], "date": record["finished"]})
    whole = {"description": "", "owners": [], "sources": [], **known}
    earlier = known.get("processing", [])
    if record["run"] is not None:
        earlier = [one for one in earlier if _made_by(one) != _made_by(entry)]
    whole["processing"] = [*earlier, entry]
    kvstore.write_bytes(target, json.dumps(whole, indent=1).encode())


def _known(data: bytes | None) -> dict[str, Any] | None:
    """Return the provenance that is there, empty without one; None for what has not its form."""
    try:
        known = json.loads(data or b"{}")
    except ValueError:
        return None
    return known if isinstance(known, dict) and isinstance(known.get("processing", []), list) else None


def _made_by(entry: Any) -> list[Any]:
    """Return the run, the mip and the output that an entry of a provenance is about, None for what it does not say."""
    method = entry.get("method") if isinstance(entry, dict) else None
    return [method.get(name) for name in ("run", "mip", "written_to")] if isinstance(method, dict) else [None]
