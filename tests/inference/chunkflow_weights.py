"""Chunkflow's weights of a patch, by their formula."""

import numpy as np


def bump(patch):
    """Weights zyx, float64, rescaled from 1 to 1e6; all ones where they would be flat."""
    axes = [2 * (np.arange(n) + 1) / (n + 1) - 1 for n in patch]
    raw = np.exp(-sum(1 / (1 - v**2) for v in np.meshgrid(*axes, indexing="ij")))
    low, high = raw.min(), raw.max()
    if high - low < 1e-9 * high:
        return np.ones(patch)
    return 1 + (raw - low) / (high - low) * (1e6 - 1)
