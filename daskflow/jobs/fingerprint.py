"""Whether a job is the one that its directory belongs to, and what differs where it is not."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from daskflow.errors import ChangedJobError, JobError
from daskflow.geometry import BlockGrid
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.ledger import DONE, EMPTY
from daskflow.jobs.parts import recorded
from daskflow.redaction import redact, redacted
from daskflow.volume import has_operator
from daskflow.volume.stage import Stage

_NOTHING = "nothing"
_STAGE = "a stage"
_MOST_LINES = 6
_LONGEST = 60
_FOLLOWING = re.compile(r"\.(readings|inputs|output|after)$|\.stages\[")
_SINCE = re.compile(r" has changed$|sha256: |daskflow: ")


def describe_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    """Return all that the result of stages depends on, as plain JSON values, by the name of the stage."""
    described = {}
    for stage in stages:
        values = {
            "grid": described_grid(stage.grid),
            "task": stage.task.describe(),
            **({"after": [one.name for one in stage.after]} if stage.after else {}),
        }
        try:
            described[stage.name] = redacted(json.loads(json.dumps(values, sort_keys=True)))
        except TypeError as error:
            raise JobError(f"stage {stage.name} describes itself by what JSON cannot hold: {error}") from error
    return described


def described_grid(grid: BlockGrid) -> dict[str, Any]:
    """Return what blocks there are, as JSON values."""
    origin = None if grid.origin is None else list(grid.origin)
    return {"box": str(grid.box), "block": list(grid.block), "origin": origin}


def token(description: Any) -> str:
    """Return 16 hexadecimal digits that stand for a description made of JSON values."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def starts_afresh(
    directory: JobDirectory, description: dict[str, Any], *, renew: bool = False, command: Sequence[str] | None = None
) -> bool:
    """Return whether there is nothing to go on with, and raise where the directory belongs to a job that differs.

    Such a job of which no block is done gives way, and so does one that has finished, if `renew`.
    """
    there = directory.read("job.json")
    differing = there is not None and bool(changes(there["stages"], description))
    if there is not None and differing and not (renew and _finished(directory)) and _any_done(directory):
        remedy = (
            "Write to another output, or start over with --overwrite before the first command (in Python:"
            " overwrite=True)"
        )
        raise changed(directory, there, description, command, remedy)
    return there is None or differing


def changed(
    directory: JobDirectory, known: Mapping[str, Any], description: Any, command: Sequence[str] | None, remedy: str
) -> ChangedJobError:
    """Return the error for a job that differs from that of its directory."""
    lines = "\n".join(f"  {line}" for line in differences(known, description, command))
    return ChangedJobError(f"{directory.url} belongs to a job that differs from this one:\n{lines}\n{remedy}")


def _finished(directory: JobDirectory) -> bool:
    report = directory.load_report()
    return report is not None and report.ok


def _any_done(directory: JobDirectory) -> bool:
    return any(ledger.count(DONE) or ledger.count(EMPTY) for ledger in recorded(directory).ledgers.values())


def differences(known: Mapping[str, Any], description: Any, command: Sequence[str] | None) -> list[str]:
    """Return a few lines on how a job, of that description and command line, differs from the `known` ``job.json``.

    Where command lines made both, the lines show what was typed otherwise, and what has changed since.
    """
    lines = _lines(known["stages"], description)
    if command is None or not known.get("command"):
        return _few(lines)
    typed = _typed(known["command"], [redact(word) for word in command])
    return _few([*typed, *(line for line in lines if _SINCE.search(line))] if typed else lines)


def changes(old: Any, new: Any) -> list[str]:
    """Return one line per value that differs between two descriptions, e.g. ``"threshold.task.at: 0.5 -> 0.6"``.

    A stage that only one of them has is one line, and so is a source that has changed. Values that follow from others
    are shown only where nothing else differs.
    """
    return _few(_lines(old, new))


def _lines(old: Any, new: Any) -> list[str]:
    gone, added = _stages(old) - _stages(new), _stages(new) - _stages(old)
    lines = [f"{name}: {_STAGE} -> {_NOTHING}" for name in sorted(gone)]
    lines += [f"{name}: {_NOTHING} -> {_STAGE}" for name in sorted(added)]
    following: list[str] = []
    before, after = (dict(_flat(one, "", leave_out=gone | added)) for one in (old, new))
    for key in sorted(before.keys() | after.keys()):
        was, now = (json.dumps(d[key]) if key in d else _NOTHING for d in (before, after))
        if was == now:
            continue
        url, function = f"{key.partition('.store.')[0]}.store.url", f"{key.partition('.options.')[0]}.function"
        if url in before and before[url] == after.get(url) and not key.endswith((".spec", ".axes")):
            lines.append(f"{before[url]} has changed")
            continue
        follows = _FOLLOWING.search(key) or (".options." in key and before.get(function) != after.get(function))
        name = _named(key, after.get(function) or before.get(function))
        (following if follows else lines).append(f"{name}: {' -> '.join(_shorten(was, now))}")
    return list(dict.fromkeys(lines or following))


def _named(key: str, function: Any) -> str:
    """Return the name of a value for people: with the command of the operator whose option it is, if any."""
    module, _, _ = str(function).rpartition(".")
    if ".options." in key and module.startswith("daskflow.operators."):
        return f"{module.rpartition('.')[2].replace('_', '-')} {key.partition('.options.')[2]}"
    return key.replace(".task.", ".", 1)


def _typed(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return a line for every option that two command lines give otherwise, or one where their commands differ."""
    before, after = _commands(old), _commands(new)
    was, now = ([name for name, _ in line] for line in (before, after))
    if was != now:
        return [f"commands: {' '.join(was)} -> {' '.join(now)}"]
    lines = []
    for (name, one), (_, other) in zip(before, after, strict=True):
        for option in dict.fromkeys([*one, *other]):
            values = [" ".join(given[option]) or "given" if option in given else "not given" for given in (one, other)]
            if values[0] != values[1]:
                lines.append(f"{f'{name} {option}'.strip()}: {' -> '.join(values)}")
    return lines


def _commands(words: Sequence[str]) -> list[tuple[str, dict[str, list[str]]]]:
    """Return the operators that a command line names, each with what follows by option; arguments by ""."""
    found: list[tuple[str, dict[str, list[str]]]] = []
    option = ""
    for word in words[1:]:
        if option not in ("-i", "-o") and has_operator(word.replace("-", "_")):
            found.append((word, {}))
            option = ""
        elif not found:
            continue
        elif word.startswith("-") and not word[1:2].isdigit():
            option = word
            found[-1][1].setdefault(option, [])
        else:
            found[-1][1].setdefault(option, []).append(word)
    return found


def _few(lines: list[str]) -> list[str]:
    return lines if len(lines) <= _MOST_LINES else [*lines[:_MOST_LINES], f"and {len(lines) - _MOST_LINES} more"]


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


def _shorten(was: str, now: str) -> list[str]:
    """Return two values, of long ones only what is around the place where they begin to differ."""
    if max(len(was), len(now)) <= _LONGEST:
        return [was, now]
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(was, now, strict=False)))
    start = max(0, alike - _LONGEST // 3)
    parts = [text[start : start + _LONGEST] for text in (was, now)]
    cut = [len(text) > start + _LONGEST for text in (was, now)]
    return [f"{'...' * (start > 0)}{part}{'...' * more}" for part, more in zip(parts, cut, strict=True)]
