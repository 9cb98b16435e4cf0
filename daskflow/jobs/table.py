"""Tables of text and HTML that fit a screen."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns under a header, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the same as an HTML table."""
    import html

    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


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
