"""Pixels as a PNG, with numpy and zlib alone, and a PNG as a notebook shows it."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from daskflow.errors import ParameterError

Pixels = npt.NDArray[np.uint8]


def encode_png(pixels: Pixels) -> bytes:
    """Return an 8-bit PNG of pixels (y, x, rgb) or of grey ones (y, x), as RFC 2083 lays it out."""
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
        raise ParameterError(f"pixels {pixels.dtype} {pixels.shape} must be uint8, (y, x) or (y, x, 3)")
    height, width = pixels.shape[:2]
    color = 0 if pixels.ndim == 2 else 2
    rows = pixels.reshape(height, -1)
    filtered = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    data = zlib.compress(filtered.tobytes(), 6)
    parts = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def svg(shapes: Sequence[str], width: int, height: int) -> str:
    """Return shapes, as SVG has them, as a picture of so many pixels, in which letters are 12 high."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="12">', *shapes, "</svg>\n"])


def png_figure(png: bytes, caption: str) -> str:
    """Return the HTML of a picture over its caption."""
    data = base64.b64encode(png).decode()
    return (
        f"<figure style='margin:0'><img src='data:image/png;base64,{data}' alt='{escape(caption)}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
