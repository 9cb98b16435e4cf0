"""The provenance of a layer or file: what was done to it, in CloudVolume's form, in it or beside it."""

from __future__ import annotations

import json
from typing import Any

from daskflow.redaction import redacted
from daskflow.stores import kvstore


def notes_at(target: str) -> list[dict[str, Any]]:
    """Return the records in a provenance, as `Store.provenance_url` names it, the oldest first."""
    known = _known(kvstore.read_bytes(target)) or {}
    methods = [entry.get("method") for entry in known.get("processing", []) if isinstance(entry, dict)]
    return [method for method in methods if isinstance(method, dict)]


def add_note(target: str, record: dict[str, Any]) -> None:
    """Add a record to a provenance, in place of the one that the same run has added.

    What is there but has another form is kept as ``<file>.old``.

    The record has user, finished and run among its JSON values.
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
