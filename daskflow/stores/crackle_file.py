"""Crackle files (.ckl) of labels, by crackle-codec: only the sections of a box are decoded."""

# ruff: noqa: ARG003 (every format is asked with the same arguments)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import MissingDependencyError
from daskflow.stores.array_files import ArrayFile
from daskflow.stores.decoder_process import decode
from daskflow.stores.local_files import begins_with
from daskflow.stores.stated import Stated


class CrackleFile(ArrayFile):
    """Labels, xyz."""

    format_name = "crackle"
    written = False

    @classmethod
    def recognises(cls, url: str) -> bool:
        return begins_with(url, (b"crkl",))

    @classmethod
    def load(cls, path: Path) -> Any:
        try:
            from crackle import codec
        except ImportError:
            raise MissingDependencyError.of("crackle-codec", "codecs") from None
        data = path.read_bytes()
        header = codec.header(data)
        return _Labels(data, (header.sx, header.sy, header.sz), np.dtype(header.dtype))

    @classmethod
    def stated(cls, url: str) -> Stated:
        return Stated(
            axes=("x", "y", "z"),
            layer_type="segmentation",
            sources={"axes": "crackle", "layer_type": "crackle holds labels"},
        )


@dataclass(frozen=True)
class _Labels:
    """The labels of a file, whose decoder damaged bytes break: it runs in a process of its own."""

    data: bytes
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, index: tuple[slice, slice, slice]) -> Any:
        first, stop, _ = index[2].indices(self.shape[2])
        shape = (1, stop - first, *self.shape[1::-1])
        return decode("crackle", self.data, shape, self.dtype, first)[0].T[index[:2]]
