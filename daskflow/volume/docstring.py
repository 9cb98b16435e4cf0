"""Google-style docstrings of operators, taken apart and put together."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

_PARTS = re.compile(
    r"(?P<text>.*?)(?:^Args:\n(?P<args>.*?))?(?P<rest>^(?:Returns|Raises|Yields|Examples?):\n.*)?\Z",
    re.DOTALL | re.MULTILINE,
)


def split(docstring: str) -> tuple[str, dict[str, str], str]:
    """Return the text before the first section, the lines of ``Args:`` by name, and the sections after them."""
    found = _PARTS.fullmatch(docstring)
    assert found is not None
    args: dict[str, str] = {}
    name = ""
    for line in (found["args"] or "").splitlines():
        if re.match(r" {4}\S.*:", line):
            name, _, first = line.strip().lstrip("*").partition(":")
            args[name] = first.strip()
        elif name and line.strip():
            args[name] += " " + line.strip()
    return found["text"].strip(), args, found["rest"] or ""


def join(text: str, args: Mapping[str, str], rest: str) -> str:
    """Return a docstring of what `split` returns."""
    lines = [
        textwrap.fill(f"{name}: {said}", 116, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, said in args.items()
    ]
    return "\n".join([text, "", *(["Args:", *lines, ""] if lines else []), rest]).rstrip() + "\n"
