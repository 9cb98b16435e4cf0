"""A compact 3D U-Net that predicts affinities: a model file for daskflow's torch engine, and for chunkflow's.

Input is (batch, 1, z, y, x) float32 in [0, 1]; output is (batch, 3, z, y, x) probabilities, channel 0 the affinity
along x, 1 along y, 2 along z: that a voxel and its neighbour one step lower on that axis lie inside the same object.
The patch size must be a multiple of 8 on each axis; the output has the size of the input.

    scale 1    1 -> 16 -> 16 ----------------------------(+)-> 16 -> 3
    scale 1/2         `-> 40 x2 -------------------(+)-> 40 x2
    scale 1/4                `-> 56 x2 ------(+)-> 56 x2
    scale 1/8                       `-> 80 x2 '

Most of the work is at half resolution, where a CPU is efficient. There is no normalisation layer, so an output voxel
depends on the image around it and on nothing else in the patch. Needs nothing but torch.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

WIDTHS = (16, 40, 56, 80)
CONVOLUTIONS = {2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}


class Residual(nn.Module):
    """Two convolutions, 3 wide, added to their input; starts as almost the identity."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        convolution, _ = CONVOLUTIONS[dimensions]
        self.first = convolution(width, width, 3, padding=1)
        self.second = convolution(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape (batch, width, z, y, x)."""
        inner = nn.functional.silu(self.first(nn.functional.silu(features)))
        result: Tensor = features + self.second(inner)
        return result


class AffinityUNet(nn.Module):
    """Residual U-Net with additive skips, one scale per width, of volumes or, with two `dimensions`, of sections."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, dimensions: int = 3) -> None:
        super().__init__()
        convolution, transposed = CONVOLUTIONS[dimensions]
        full, *middle, coarsest = widths
        pairs = list(pairwise(widths))
        self.stem = nn.Sequential(convolution(1, full, 3, padding=1), nn.SiLU(), convolution(full, full, 3, padding=1))
        self.down = nn.ModuleList(convolution(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.encode = nn.ModuleList(Residual(width, dimensions) for width in middle)
        self.bottom = Residual(coarsest, dimensions)
        self.up = nn.ModuleList(transposed(coarse, fine, 2, stride=2) for fine, coarse in pairs)
        self.decode = nn.ModuleList(Residual(width, dimensions) for width in middle)
        self.refine = nn.Sequential(nn.SiLU(), convolution(full, full, 3, padding=1), nn.SiLU())
        self.head = convolution(full, dimensions, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features at full and at half resolution, before the output layer."""
        seen = [self.stem((image - 0.5) * 6)]
        for down, encode in zip(self.down, (*self.encode, self.bottom), strict=True):
            seen.append(encode(down(seen[-1])))
        coarse = seen.pop()
        for up, decode in zip(reversed(self.up[1:]), reversed(self.decode), strict=True):
            coarse = decode(seen.pop() + up(coarse))
        return self.refine(seen.pop() + self.up[0](coarse)), coarse

    def forward(self, image: Tensor) -> Tensor:
        """Return affinity probabilities (batch, 3, z, y, x) of an image (batch, 1, z, y, x)."""
        fine, _ = self.features(image)
        return torch.sigmoid(self.head(fine))


InstantiatedModel = AffinityUNet()
