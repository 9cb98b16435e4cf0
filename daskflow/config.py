"""Sizes, durations, counts and tables as people read and say them."""

from __future__ import annotations

import re
import shutil
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar

from daskflow.errors import ParameterError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_UNITS |= {f"{unit}I": 1024**power for power, unit in enumerate("KMGTP", start=1)}
_WIDTH = 120  # of a table where there is no terminal
_LEAST = 20  # characters of its first column
_BYTES = re.compile(r"([0-9]*\.?[0-9]+)\s*([KMGTP]?I?)B?", re.IGNORECASE)


def parse_bytes(size: str | int | float) -> int:
    """Return the number of bytes that a size such as ``"4GB"``, ``"512 MiB"`` or ``1e9`` stands for.

    Raises:
        ParameterError: the text is not a size.
    """
    if isinstance(size, int | float):
        return int(size)
    match = _BYTES.fullmatch(size.strip())
    if match is None:
        raise ParameterError(f"{size!r} is not a size in bytes; write it like '4GB' or '512MiB'")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def meant(word: str, known: Iterable[str]) -> str:
    """Return which of some words a user may have meant, as the end of a message; nothing where none is near."""
    import difflib

    words = list(known)
    within = [one for one in words if len(word) > 2 and (word in one or one in word)]
    near = list(dict.fromkeys([*difflib.get_close_matches(word, words, n=2), *within]))[:2]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def format_bytes(size: float) -> str:
    """Return a number of bytes in decimal units, for people, e.g. ``"17.6 TB"``."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} EB"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], spared: Collection[str] = ()) -> str:
    """Return columns under a header, the first to the left and the others to the right.

    Columns of the names `spared` are left out where they say nothing. The first is folded where the table would be
    wider than the terminal, or than 120 characters where there is none.
    """
    said = [n for n, name in enumerate(header) if name not in spared or any(row[n] not in ("0", "-") for row in rows)]
    table = [[row[n] for n in said] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(said))]
    room = shutil.get_terminal_size((_WIDTH, 24)).columns - sum(widths[1:]) - 2 * len(widths[1:])
    widths[0] = min(widths[0], max(room, _LEAST))
    lines = []
    for first, *others in table:
        head, *folded = textwrap.wrap(first, widths[0], subsequent_indent="  ") or [""]
        cells = [head.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
        lines += ["  ".join(cells).rstrip(), *folded]
    return "\n".join(lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the same as an HTML table."""
    import html

    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Summary(ABC):
    """What people read on one screen, as text and as HTML: a title, a table, and a line for each note."""

    header: ClassVar[tuple[str, ...]]
    spared: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def summary(self) -> tuple[str, Sequence[Sequence[str]], Sequence[str]]:
        """Return the title, the rows of the table, and the notes."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.summary()[0]}>"

    def __str__(self) -> str:
        title, rows, notes = self.summary()
        return "\n".join([title, text_table(self.header, rows, self.spared), *notes])

    def _repr_html_(self) -> str:
        import html

        title, rows, notes = self.summary()
        below = "".join(f"<div style='white-space:pre-wrap'>{html.escape(note)}</div>" for note in notes)
        return f"<b>{html.escape(title)}</b>{html_table(self.header, rows)}{below}"


def format_seconds(seconds: float) -> str:
    """Return a duration for people, e.g. ``"2.5 s"``, ``"3 min 20 s"``, ``"5 h 10 min"``, ``"2 d 3 h"``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    for high, low, size, unit in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        if seconds < 60 * size or high == "d":
            return f"{int(seconds // size)} {high} {int(seconds % size // unit)} {low}"
    raise AssertionError


def format_count(count: float) -> str:
    """Return a number for people in at most five characters or so, e.g. ``"950"``, ``"1.2 k"``, ``"35 M"``."""
    for unit in ("", " k", " M", " G"):
        if abs(count) < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"
