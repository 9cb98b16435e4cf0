"""Draw docs/segmentation.png: an image, affinities, fragments and neurons of a synthetic volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import daskflow
from daskflow.demo.phantom import phantom
from daskflow.view import side_by_side


def main() -> None:
    """Write the picture beside this script."""
    image, truth = phantom((24, 192, 192), seed=1)
    noise = np.random.default_rng(0).random((3, *truth.shape)) * 0.2
    array = np.empty(noise.shape, np.float32)
    for axis in range(3):
        same = (np.roll(truth, 1, axis) == truth) & (truth > 0)
        array[axis] = np.clip(gaussian_filter(same.astype(np.float32), 0.7) - noise[axis], 0, 1)
    affinities = daskflow.open(array, layer_type="affinity_map")
    fragments = daskflow.watershed(affinities, order="zyx", low=0.05, high=0.95)
    neurons = daskflow.agglomerate(affinities, fragments, order="zyx", threshold=0.3)
    z = image.shape[0] // 2
    panels = [(image[z : z + 1], "image"), (array[:, z : z + 1], "affinity_map")]
    panels += [(one.read()[z : z + 1], "segmentation") for one in (fragments, neurons)]
    Path(__file__).with_suffix(".png").write_bytes(side_by_side(panels))


if __name__ == "__main__":
    main()
