"""Arguments of block functions that know more of themselves than their values tell."""

from __future__ import annotations

from typing import Any


class Option:
    """An argument that says itself what a result depends on, and may know before anything runs that it would fail."""

    def describe(self) -> Any:
        """Return what the result depends on, as JSON."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what can be known to fail before a voxel is read."""
