"""A volume as a notebook shows it: facts, and a picture of the middle section when that is cheap."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from daskflow.config import format_bytes
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.volume.node import MappedBoxes
from daskflow.volume.picture import section_png

if TYPE_CHECKING:
    from daskflow.volume.volume import Volume

_CHEAP_BYTES = 2**25


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
        "block": f"{_sized(spec, volume.block)}, {volume.grid.count:,} blocks",
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
        png = section_png(volume.read(section), volume.spec.kind)
    except Exception:  # noqa: BLE001 (whatever a user's function raises, the facts can be shown)
        return ""
    data = base64.b64encode(png).decode()
    return f"<figure style='margin:0'><img src='data:image/png;base64,{data}'><figcaption>z = {z}</figcaption></figure>"


def _sized(spec: VolumeSpec, shape: Zyx) -> str:
    size = spec.nbytes_of(BoundingBox((0, 0, 0), shape))
    return f"{' x '.join(f'{n:,}' for n in shape)}, {format_bytes(size)}"
