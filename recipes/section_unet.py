"""The U-Net of affinity_unet.py over five scales for thick sections, each of which it sees alone: a model file, too.

Channels 0 and 1 are the affinities along x and y; channel 2, along z, is 0, so nothing joins objects across sections.
The patch size must be a multiple of 16 on y and x.
"""

from __future__ import annotations

from affinity_unet import AffinityUNet
from torch import Tensor
from torch.nn import functional

WIDTHS = (24, 32, 48, 64, 80)


class SectionUNet(AffinityUNet):
    """The U-Net of affinities within sections."""

    def __init__(self) -> None:
        super().__init__(WIDTHS, dimensions=2)

    def forward(self, image: Tensor) -> Tensor:
        """Return affinity probabilities (batch, 3, z, y, x) of an image (batch, 1, z, y, x); those along z are 0."""
        found = super().forward(image.transpose(1, 2).flatten(0, 1))
        found = found.unflatten(0, (image.shape[0], image.shape[2])).transpose(1, 2)
        return functional.pad(found, (0, 0, 0, 0, 0, 0, 0, 1))


InstantiatedModel = SectionUNet()
