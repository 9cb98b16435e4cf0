"""Sections beside each other in one picture, for reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError
from daskflow.geometry import LayerType
from daskflow.volume.picture import SIDE, Pixels, encode_png, section_pixels

_GAP = 8


def side_by_side(sections: Sequence[tuple[npt.NDArray[Any], LayerType]], *, side: int = SIDE) -> bytes:
    """Return a PNG of sections in a row on white, e.g. image, affinities and segmentation.

    Args:
        sections: each yx, zyx or czyx (of several the middle one is shown), with its layer type.
        side: pixels of the longer side of each; smaller ones are enlarged by whole factors.

    Raises:
        ParameterError: no sections.
    """
    if not sections:
        raise ParameterError("no sections to draw; give at least one")
    panels = [_enlarged(section_pixels(section, kind, side=side), side) for section, kind in sections]
    height = max(len(panel) for panel in panels)
    row: list[Pixels] = []
    for panel in panels:
        below = np.full((height - len(panel), panel.shape[1], 3), 255, np.uint8)
        row += [np.full((height, _GAP, 3), 255, np.uint8), np.concatenate([panel, below])]
    return encode_png(np.concatenate(row[1:], axis=1))


def _enlarged(pixels: Pixels, side: int) -> Pixels:
    factor = max(1, side // max(pixels.shape[:2]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)
