"""Crackle files (.ckl) of labels, by crackle-codec: only the sections of a box are decoded."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from daskflow.errors import MissingDependencyError
from daskflow.stores.array_files import ArrayFile
from daskflow.stores.local_files import begins_with, file_state, local_file
from daskflow.stores.stated import Stated


class CrackleFile(ArrayFile):
    """Labels, xyz."""

    format_name = "crackle"
    written = False

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (b"crkl",))

    @classmethod
    def array(cls, url: str) -> Any:
        path = local_file(url)
        return _labels(path, **file_state(path))

    @classmethod
    def stated(cls, url: str) -> Stated:
        return Stated(
            axes=("x", "y", "z"),
            layer_type="segmentation",
            sources={"axes": "crackle", "layer_type": "crackle holds labels"},
        )


@functools.lru_cache(maxsize=2)
def _labels(path: Path, size: int, mtime_ns: int) -> Any:  # noqa: ARG001 (a changed file is another array)
    try:
        import crackle
    except ImportError:
        raise MissingDependencyError.of("crackle-codec", "codecs") from None
    return crackle.CrackleArray(path.read_bytes())
