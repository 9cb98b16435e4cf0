"""Sections of volumes as a PNG, with numpy alone, and a volume as a notebook shows it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from daskflow.config import format_bytes
from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx
from daskflow.stores.figure import Pixels, encode_png, png_figure
from daskflow.volume.mapping import MappedBoxes

if TYPE_CHECKING:
    from daskflow.volume.volume import Volume

Array = npt.NDArray[Any]

SIDE = 256
_STRETCH = (0.5, 99.5)
_LARGEST = 1e300
_GAP = 8
_CHEAP_BYTES = 2**25


def section_pixels(section: Array, layer_type: LayerType = "image", *, side: int = SIDE) -> Pixels:
    """Return the pixels (y, x, rgb) of one section, yx, zyx or czyx; of several sections the middle one is shown.

    Images are stretched to their contrast, labels get a colour each, the first channels of affinities and probabilities
    become red, green and blue. Sections whose longer side has more than `side` pixels are thinned out.
    """
    section = np.asarray(section)
    if section.ndim not in (2, 3, 4) or section.size == 0:
        raise GeometryError(f"no picture of shape {section.shape}; give a section yx, zyx or czyx that holds voxels")
    channels = section.reshape((1,) * (4 - section.ndim) + section.shape)
    step = -(-max(channels.shape[2:]) // side)
    channels = channels[:, channels.shape[1] // 2, ::step, ::step]
    if layer_type == "segmentation":
        return label_colors(channels[0])
    if layer_type == "image":
        channels = channels[: 3 if len(channels) == 3 else 1]
        low, high = contrast(channels)
    else:
        channels = channels[:3]
        low, high = fixed_range(channels.dtype)
    grey = [_bytes(channel, low, high) for channel in channels]
    if len(grey) == 1:
        grey *= 3
    return np.stack([*grey, *[np.zeros_like(grey[0])] * (3 - len(grey))], axis=-1)


def side_by_side(sections: Sequence[tuple[Array, LayerType]], *, side: int = SIDE) -> bytes:
    """Return a PNG of sections in a row on white, e.g. image, affinities and segmentation; see `section_pixels`.

    The longer side of each has at most `side` pixels; smaller ones are enlarged by whole factors.
    """
    if not sections:
        raise ParameterError("no sections to draw; give at least one")
    panels = []
    for section, kind in sections:
        pixels = section_pixels(section, kind, side=side)
        factor = max(1, side // max(pixels.shape[:2]))
        panels.append(pixels.repeat(factor, axis=0).repeat(factor, axis=1))
    height = max(len(panel) for panel in panels)
    row: list[Pixels] = []
    for panel in panels:
        below = np.full((height - len(panel), panel.shape[1], 3), 255, np.uint8)
        row += [np.full((height, _GAP, 3), 255, np.uint8), np.concatenate([panel, below])]
    return encode_png(np.concatenate(row[1:], axis=1))


def label_colors(labels: Array) -> Pixels:
    """Return a colour (rgb, last axis) for every label: always the same one for a label, black for 0."""
    values, place = np.unique(labels, return_inverse=True)
    mixed = values.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)  # the finaliser of splitmix64
    hue, saturation, brightness = (((mixed >> np.uint64(bit)) & np.uint64(0xFFFF)) / 0xFFFF for bit in (0, 16, 32))
    wheel = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    strength = 0.5 + 0.5 * saturation[:, None]
    colors = (0.6 + 0.4 * brightness[:, None]) * (1 - strength + strength * np.clip(wheel, 0, 1))
    colors[values == 0] = 0
    rgb: Pixels = np.rint(colors * 255).astype(np.uint8)[place.reshape(labels.shape)]
    return rgb


def fixed_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the values shown as black and white when nothing is known but the type: 0 to 1, or all of an integer's."""
    if dtype.kind not in "iu":
        return 0.0, 1.0
    return float(max(0, np.iinfo(dtype).min)), float(np.iinfo(dtype).max)


def contrast(values: Array) -> tuple[float, float]:
    """Return the values to show as black and white: percentiles 0.5 and 99.5 of what is finite, 0 and 1 of a mask."""
    finite = values[np.isfinite(values)]
    if not finite.size or values.dtype == bool:
        return 0.0, 1.0
    bounded = np.clip(finite.astype(np.float64), -_LARGEST, _LARGEST)
    low, high = (float(value) for value in np.percentile(bounded, _STRETCH))
    return low, high


def _bytes(values: Array, low: float, high: float) -> Pixels:
    inside = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high)
    return np.rint((inside - low) / (high - low or 1.0) * 255).astype(np.uint8)


def html(volume: Volume) -> str:
    """Return a table of a volume's geometry beside a picture of its middle section."""
    spec = volume.spec
    axes = "z y x" if spec.channels is None else "c z y x"
    rows = {
        f"shape ({axes})": " x ".join(f"{n:,}" for n in volume.shape),
        "box": f"{spec.box} (z0-z1_y0-y1_x0-x1)",
        "dtype": f"{spec.dtype}, {format_bytes(spec.nbytes)}",
        "layer type": spec.layer_type or "unknown",
        "voxel size (z y x)": "unknown" if spec.voxel_size is None else spec.size_text,
        "block": f"{_sized(spec, volume.block)}, {volume.grid.count:,} block{'s' * (volume.grid.count != 1)}",
    }
    if spec.channel_names:
        rows["channels"] = ", ".join(spec.channel_names)
    if spec.chunk is not None:
        rows["chunk"] = _sized(spec, spec.chunk)
    if spec.shard is not None:
        rows["shard"] = _sized(spec, spec.shard)
    if len(volume.mips) > 1:
        rows["mips"] = "<br>".join(f"{level}: {mip.size_text}" for level, mip in enumerate(volume.mips))
    table = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{value if name == 'mips' else escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return (
        "<div style='display:flex;gap:1em;align-items:flex-start'>"
        f"<div><b>daskflow.Volume</b><table>{table}</table></div>{_picture(volume)}</div>"
    )


def _picture(volume: Volume) -> str:
    """Return the middle section as an image, or nothing when it takes much to read or cannot be read."""
    z = (volume.box.start[0] + volume.box.stop[0]) // 2
    low, high = volume.box.start, volume.box.stop
    section = BoundingBox((z, low[1], low[2]), (z + 1, high[1], high[2]))
    expression = volume.expression
    if expression.stages or any(isinstance(node, MappedBoxes) and node.dear for node in expression.nodes):
        return ""
    try:
        if expression.estimate([section]).memory > _CHEAP_BYTES:
            return ""
        png = side_by_side([(volume.read(section), volume.spec.kind)])
    except Exception:  # noqa: BLE001 (whatever a user's function raises, the facts can be shown)
        return ""
    return png_figure(png, f"z = {z}")


def _sized(spec: VolumeSpec, shape: Zyx) -> str:
    size = spec.nbytes_of(BoundingBox((0, 0, 0), shape))
    return f"{' x '.join(f'{n:,}' for n in shape)}, {format_bytes(size)}"
