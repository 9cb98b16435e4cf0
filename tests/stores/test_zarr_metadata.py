"""What the metadata of zarr arrays say."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.stores.base import Layout
from daskflow.stores.zarr_metadata import array_metadata, codec_of


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("encoding", "quality", "found"),
    [
        (None, None, ("zstd", 1)),
        ("zstd", 7, ("zstd", 7)),
        ("gzip", 3, ("gzip", 3)),
        ("blosc", None, ("blosc", 5)),
        ("raw", None, ("raw", None)),
    ],
)
def test_the_codec_of_an_array_makes_one_alike(version, encoding, quality, found):
    shard = (16, 16, 16) if version == 3 else None
    given = Layout(encoding=encoding, quality=quality)
    metadata = array_metadata(version, (32,) * 3, np.dtype("uint16"), (8,) * 3, shard, given)
    assert codec_of(metadata) == found
    again = Layout(encoding=found[0], quality=found[1])
    assert array_metadata(version, (32,) * 3, np.dtype("uint16"), (8,) * 3, shard, again) == metadata


def test_a_codec_that_is_not_written_here_is_unknown():
    assert codec_of({"zarr_format": 2, "compressor": {"id": "lz4"}}) == (None, None)
    assert codec_of({"zarr_format": 3, "codecs": [{"name": "bytes"}, {"name": "jpegxl"}]}) == (None, None)
