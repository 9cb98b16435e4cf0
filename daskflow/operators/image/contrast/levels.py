"""Grey levels of every section, and the files that keep them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError, StoreNotFoundError
from daskflow.stores import kvstore

Counts = npt.NDArray[np.int64]

BINS = {"uint8": 256, "uint16": 65536}


@dataclass(frozen=True)
class SectionLevels:
    """How often each grey value occurs in the sampled part of one section.

    Attributes:
        counts: by grey value, 256 or 65536 of them.
        patch_size: voxels of a sampled patch (yx).
        patches: how many were sampled.
        coverage: share of the section's voxels that was sampled.
    """

    counts: Counts
    patch_size: tuple[int, int]
    patches: int
    coverage: float

    def to_json(self) -> bytes:
        """Return the file's content: levels, patch_size (xyz), num_patches, coverage_ratio."""
        y, x = self.patch_size
        content = {
            "levels": self.counts.tolist(),
            "patch_size": [x, y, 1],
            "num_patches": self.patches,
            "coverage_ratio": self.coverage,
        }
        return json.dumps(content).encode()

    @classmethod
    def from_json(cls, data: bytes, url: str) -> SectionLevels:
        """Return what a file says; `url` is for the message.

        Raises:
            CorruptChunkError: it is no file of levels.
        """
        try:
            content = json.loads(data)
            counts = np.array(content["levels"], np.int64)
            x, y = content.get("patch_size", (0, 0))[:2]
            patches, coverage = int(content.get("num_patches", 0)), float(content.get("coverage_ratio", 0))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise CorruptChunkError(f"{kvstore.redact(url)} holds no levels of a section: {error!r}") from error
        if counts.shape not in ((256,), (65536,)) or (counts < 0).any():
            raise CorruptChunkError(
                f"{kvstore.redact(url)} holds {counts.shape} levels; they must be 256 or 65536 numbers of at least 0"
            )
        return cls(counts, (int(y), int(x)), patches, coverage)


def levels_url(directory: str, z: int) -> str:
    """Return where the levels of the section at z are kept: ``directory/z``."""
    return f"{directory}/{z}"


def write_levels(directory: str, z: int, levels: SectionLevels) -> None:
    """Store the levels of one section."""
    kvstore.write_bytes(levels_url(directory, z), levels.to_json())


def read_section(directory: str, z: int, bins: int) -> SectionLevels:
    """Return the stored levels of one section.

    Args:
        directory: URL; files are named by z.
        z: of the section.
        bins: how many levels there must be.

    Raises:
        StoreNotFoundError: there are none.
        CorruptChunkError: the file is damaged.
        ParameterError: it is about an image of another dtype.
    """
    url = levels_url(directory, z)
    data = kvstore.read_bytes(url)
    if data is None:
        raise StoreNotFoundError(
            f"there are no levels of section {z} in {kvstore.redact(directory)}; count them with contrast-levels"
        )
    levels = SectionLevels.from_json(data, url)
    if len(levels.counts) != bins:
        raise ParameterError(f"{kvstore.redact(url)} has {len(levels.counts)} levels, and the volume has {bins}")
    return levels


class Levels(Mapping[int, SectionLevels]):
    """The levels of the sections of a layer, by z; shown as bands of percentiles in a notebook.

    Args:
        directory: path or URL of the files, ``LAYER/levels/MIP``.

    Raises:
        StoreNotFoundError: no files are there.
    """

    def __init__(self, directory: str) -> None:
        self.directory = kvstore.normalise(directory)
        names = kvstore.list_names(self.directory)
        self._sections = sorted(int(name) for name in names if re.fullmatch(r"-?\d+", name))
        if not self._sections:
            raise StoreNotFoundError(
                f"there are no levels in {kvstore.redact(self.directory)}; count them with contrast-levels"
            )

    def __getitem__(self, z: int) -> SectionLevels:
        url = levels_url(self.directory, z)
        data = kvstore.read_bytes(url)
        if data is None:
            raise KeyError(z)
        return SectionLevels.from_json(data, url)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def __repr__(self) -> str:
        first, last = self._sections[0], self._sections[-1]
        return f"<Levels of {len(self)} sections, z {first} to {last}, in {kvstore.redact(self.directory)}>"

    def to_svg(self) -> str:
        """Return a picture of the levels as SVG: percentile bands of grey value over z."""
        from daskflow.operators.image.contrast.plot import levels_svg

        return levels_svg(self)

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(repr(self))}</b><br>{self.to_svg()}"
