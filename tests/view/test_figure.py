"""Sections in a row."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from daskflow.errors import ParameterError
from daskflow.view import side_by_side


def test_sections_stand_in_a_row_on_white():
    image = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    labels = np.full((32, 64), 5, np.uint32)
    with Image.open(io.BytesIO(side_by_side([(image, "image"), (labels, "segmentation")], side=128))) as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (128, 128 + 8 + 128, 3)
    assert (pixels[:, 128:136] == 255).all()
    assert (np.diff(pixels[0, :128, 0].astype(int)) >= 0).all()
    assert len(np.unique(pixels[:64, 136:].reshape(-1, 3), axis=0)) == 1
    assert (pixels[64:, 136:] == 255).all()


def test_no_sections_are_refused():
    with pytest.raises(ParameterError, match="at least one"):
        side_by_side([])
