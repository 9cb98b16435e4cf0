"""What other packages add to daskflow, and which versions are installed, read from what pip wrote beside them.

`importlib.metadata` knows the same, but importing it and asking it takes as long as a small job.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def entry_points(group: str) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group, of all packages."""
    if not any(group in _text(f"{place}/entry_points.txt") for place in _installed()):
        return ()
    import importlib.metadata

    return tuple(importlib.metadata.entry_points(group=group))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found: dict[str, str] = {}
    for place in _installed():
        name, _, version = place.rpartition("/")[2].removesuffix(".dist-info").partition("-")
        found.setdefault(_normalised(name), version)
    return {package: found[_normalised(package)] for package in packages if found.get(_normalised(package))}


def _installed() -> Iterator[str]:
    """Yield the directory of every installed package's metadata."""
    for folder in sys.path:
        with contextlib.suppress(OSError):
            names = os.listdir(folder or ".")  # noqa: PTH208 (a `Path` for each costs more than all the rest)
            yield from (f"{folder or '.'}/{name}" for name in names if name.endswith("-info"))


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read()
    return ""


def _normalised(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
