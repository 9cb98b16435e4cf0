"""Draw docs/images.png: a section badly lit, its contrast stretched, and equalised locally."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import daskflow
from daskflow.demo.phantom import phantom
from daskflow.stores.figure import encode_png

GAP = 6


def main() -> None:
    """Write the picture beside this script."""
    grey, _ = phantom((16, 240, 240), seed=4)
    light = np.linspace(0.25, 0.6, grey.shape[2])  # a shadow on the left
    section = (grey[8:9] * light + 20).astype(np.uint8)
    image = daskflow.open(section, layer_type="image")
    panels = [image, daskflow.contrast(image, clip_fraction=0.01), daskflow.clahe(image, clip_limit=4)]
    framed = [np.pad(panel.read()[0], ((0, 0), (0, GAP)), constant_values=255) for panel in panels]
    row = np.concatenate(framed, axis=1)[:, :-GAP]
    Path(__file__).with_suffix(".png").write_bytes(encode_png(np.ascontiguousarray(row)))


if __name__ == "__main__":
    main()
