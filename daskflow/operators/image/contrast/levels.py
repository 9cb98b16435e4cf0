"""Grey levels of every section: the files that keep them, and a picture of them."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daskflow.errors import CorruptChunkError, ParameterError, StoreNotFoundError
from daskflow.stores import kvstore
from daskflow.volume import Volume

Counts = npt.NDArray[np.int64]
Points = npt.NDArray[np.float64]

BINS = {"uint8": 256, "uint16": 65536}
# of the picture
_SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BANDS = ((0, 6, "#d6e4f2"), (1, 5, "#a9c8e6"), (2, 4, "#6ba3d6"))
_WIDTH, _HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 130, 20, 45
_INK = "#333"
_MOST = 1000


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
            CorruptChunkError: it is not a file of levels.
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

    def _repr_html_(self) -> str:
        return histogram_svg(self.counts)


def known_place(volume: Volume) -> str:
    """Return the directory in which a layer keeps its levels: ``levels/MIP`` inside it, as igneous has it.

    Layers other than precomputed ones, to which nothing may be added, have it beside them: ``LAYER.levels/MIP``.

    Raises:
        ParameterError: the volume is not, or not a part of, a stored layer.
    """
    store = volume.stored
    if store is None or store.opened is None:
        raise ParameterError(
            "levels have a known place only in a stored layer, and this volume is computed: name a directory for them"
        )
    url = store.opened.url.rstrip("/")
    return f"{url}/levels/{store.mip}" if store.encloses else f"{url}.levels/{store.mip}"


def levels_url(directory: str, z: int) -> str:
    """Return where the levels of the section at z are kept: ``directory/z``."""
    return f"{directory}/{z}"


def read_section(directory: str, z: int, bins: int) -> SectionLevels:
    """Return the stored levels of one section, of which there must be as many as `bins`.

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


def read_levels(levels: Volume | str | os.PathLike[str]) -> Levels:
    """Return the levels of the sections of a stored image, as `contrast_levels` counted them.

    Args:
        levels: the image, which has them in its known place; or path or URL of another directory of them.

    Raises:
        ParameterError: the volume is not a stored layer.
        StoreNotFoundError: no files are there.
    """
    return Levels(os.fspath(levels) if isinstance(levels, str | os.PathLike) else known_place(levels))


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
        return levels_svg(self)

    def _repr_html_(self) -> str:
        return f"<b>{html.escape(repr(self))}</b><br>{self.to_svg()}"


def levels_svg(levels: Levels) -> str:
    """Return an SVG of the grey values of sections over z: the median, and bands that hold 50, 90 and 98 % of voxels.

    Of more than 1000 sections evenly spread ones are shown. A section without voxels above 0 is a gap.
    """
    sections = np.array(list(levels))
    shown = sections[:: -(-len(sections) // _MOST)]
    values = np.array([_percentiles(levels[int(z)].counts) for z in shown])
    top = _round_up(float(np.nanmax(values)) if np.isfinite(values).any() else 1.0)
    x = _LEFT + (shown - shown[0]) / max(1, shown[-1] - shown[0]) * (_WIDTH - _LEFT - _RIGHT)
    y = _TOP + (1 - values / top) * (_HEIGHT - _TOP - _BOTTOM)
    parts = [_axes(int(shown[0]), int(shown[-1]), top)]
    for low, high, color in _BANDS:
        for run in _runs(values[:, 0]):
            outline = [*zip(x[run], y[run, high], strict=True), *zip(x[run][::-1], y[run, low][::-1], strict=True)]
            parts.append(f'<polygon points="{_points(outline)}" fill="{color}" stroke="{color}"/>')
    for run in _runs(values[:, 0]):
        line = _points(list(zip(x[run], y[run, 3], strict=True)))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#123a63" stroke-width="1.5"/>')
    parts.append(_legend())
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(parts)}</svg>'


def histogram_svg(counts: Counts) -> str:
    """Return an SVG of how many voxels have which grey value, in 256 bars."""
    bars = counts.reshape(256, -1).sum(axis=1)
    outline = "".join(f"V{120 - 110 * share:.1f}h2" for share in bars / max(1, bars.max()))
    ends = "".join(
        f'<text x="{x}" y="136" text-anchor="{anchor}" fill="{_INK}">{text}</text>'
        for x, anchor, text in ((0, "start", 0), (256, "middle", "grey value"), (512, "end", len(counts) - 1))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="512" height="140" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/><path d="M0,120{outline}V120Z" fill="#6ba3d6"/>{ends}</svg>'
    )


def _percentiles(counts: npt.NDArray[np.int64]) -> Points:
    """Return the grey values below which some shares of the voxels above 0 lie; NaN without such voxels."""
    below = np.cumsum(np.concatenate(([0], counts[1:])))
    if not below[-1]:
        return np.full(len(_SHARES), np.nan)
    values: Points = np.searchsorted(below, np.array(_SHARES) * below[-1]).astype(np.float64)
    return values


def _round_up(value: float) -> float:
    scale = 10 ** np.floor(np.log10(max(value, 1.0)))
    return float(next(step * scale for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * scale >= value))


def _runs(values: Points) -> list[npt.NDArray[np.int64]]:
    """Return the indices of what is finite, cut where something is not."""
    finite = np.flatnonzero(np.isfinite(values))
    return [run for run in np.split(finite, np.flatnonzero(np.diff(finite) > 1) + 1) if run.size]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _axes(first: int, last: int, top: float) -> str:
    left, right, low, high = _LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP
    parts = ['<rect width="100%" height="100%" fill="white"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = low - share * (low - high)
        parts.append(f'<path d="M{left},{y:.1f}H{right}" stroke="#eee"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_INK}">{share * top:g}</text>')
        if last > first or share == 0:
            x, z = left + share * (right - left), first + share * (last - first)
            parts.append(f'<text x="{x:.1f}" y="{low + 18}" text-anchor="middle" fill="{_INK}">{round(z)}</text>')
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle" fill="{_INK}">section z</text>')
    turned = (low + high) / 2
    parts.append(
        f'<text transform="translate(14,{turned}) rotate(-90)" text-anchor="middle" fill="{_INK}">grey value</text>'
    )
    return "".join(parts)


def _legend() -> str:
    x = _WIDTH - _RIGHT + 14
    rows = [("#123a63", "median"), (_BANDS[2][2], "half"), (_BANDS[1][2], "90 %"), (_BANDS[0][2], "98 %")]
    return "".join(
        f'<rect x="{x}" y="{_TOP + 20 * at}" width="14" height="12" fill="{color}"/>'
        f'<text x="{x + 20}" y="{_TOP + 20 * at + 10}" fill="{_INK}">{text} of voxels</text>'
        if at
        else f'<rect x="{x}" y="{_TOP + 4}" width="14" height="3" fill="{color}"/>'
        f'<text x="{x + 20}" y="{_TOP + 10}" fill="{_INK}">{text}</text>'
        for at, (color, text) in enumerate(rows)
    )
