"""Whether a job is the one that its directory belongs to, and what differs where it is not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from daskflow.errors import JobError
from daskflow.redaction import redacted
from daskflow.volume.stage import Stage

_NOTHING = "nothing"
_STAGE = "a stage"
_MOST_CHANGES = 20


def describe_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return all that the result of stages depends on, as plain JSON values, by the name of the stage.

    Raises:
        JobError: a task describes itself by something that JSON does not know.
    """
    described = {}
    for stage in stages:
        grid = stage.grid
        values = {
            "grid": {"box": str(grid.box), "block": grid.block, "origin": grid.origin},
            "task": stage.task.describe(),
        }
        try:
            described[stage.name] = redacted(json.loads(json.dumps(values, sort_keys=True)))
        except TypeError as error:
            raise JobError(f"stage {stage.name} describes itself by what JSON cannot hold: {error}") from error
    return described


def token(description: Any) -> str:
    """Return 16 hexadecimal digits that stand for a description made of JSON values."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(old: Any, new: Any) -> list[str]:
    """Return one line per value that differs between two descriptions, e.g. ``"threshold.task.at: 0.5 -> 0.6"``.

    A stage that only one of them has is one line.
    """
    gone, added = _stages(old) - _stages(new), _stages(new) - _stages(old)
    lines = [f"{name}: {_STAGE} -> {_NOTHING}" for name in sorted(gone)]
    lines += [f"{name}: {_NOTHING} -> {_STAGE}" for name in sorted(added)]
    before, after = (dict(_flat(one, "", leave_out=gone | added)) for one in (old, new))
    for key in sorted(before.keys() | after.keys()):
        was, now = (json.dumps(d[key]) if key in d else _NOTHING for d in (before, after))
        if was != now:
            lines.append(f"{key}: {_shorten(was)} -> {_shorten(now)}")
    if len(lines) > _MOST_CHANGES:
        lines[_MOST_CHANGES:] = [f"and {len(lines) - _MOST_CHANGES} more"]
    return lines


def _stages(description: Any) -> set[str]:
    if not isinstance(description, dict):
        return set()
    return {name for name, values in description.items() if isinstance(values, dict) and "task" in values}


def _flat(value: Any, path: str, leave_out: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested dicts and of lists that hold dicts, with their paths."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key not in leave_out:
                yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{number}]")
    else:
        yield path, value


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:38]}...{text[-38:]}"
