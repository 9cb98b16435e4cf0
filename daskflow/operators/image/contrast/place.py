"""What images levels are counted of, in which blocks, and where they are kept."""

from __future__ import annotations

from daskflow.errors import ParameterError
from daskflow.operators.image.contrast.levels import BINS
from daskflow.volume import Volume


def grey_image(volume: Volume, name: str) -> None:
    """Raise unless a volume is an image whose grey values can be counted.

    Args:
        volume: what is asked about; no segmentation.
        name: what it is needed for.

    Raises:
        ParameterError: several channels, or neither uint8 nor uint16.
    """
    if volume.channels not in (None, 1):
        raise ParameterError(f"{name} takes one channel, the volume has {volume.channels}; use pick-channels first")
    if volume.dtype.name not in BINS:
        raise ParameterError(
            f"{name} takes uint8 or uint16, the volume is {volume.dtype}; use astype, or quantize for probabilities"
        )


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
    opened, mip = store.opened, store.mip
    url = opened.url.rstrip("/")
    return f"{url}/levels/{mip}" if store.encloses else f"{url}.levels/{mip}"


def with_few_sections(volume: Volume, per_section: int, most: int) -> Volume:
    """Return a volume with blocks of half as many sections, again and again, while what they need is too much.

    Blocks stay whole chunks and shards.

    Args:
        volume: the volume.
        per_section: bytes that each section of a block needs.
        most: bytes that a block may need.
    """
    deep, high, wide = volume.block
    unit = (volume.spec.write_unit or (1, 1, 1))[0]
    while deep % (2 * unit) == 0 and deep * per_section > most:
        deep //= 2
    return volume.with_block((deep, high, wide))
