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

import torch
from torch import Tensor, nn

WIDTHS = (16, 40, 56, 80)


class Residual(nn.Module):
    """Two 3x3x3 convolutions added to their input; starts as almost the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape (batch, width, z, y, x)."""
        inner = nn.functional.silu(self.first(nn.functional.silu(features)))
        result: Tensor = features + self.second(inner)
        return result


class AffinityUNet(nn.Module):
    """Residual U-Net over four scales with additive skips."""

    def __init__(self, widths: tuple[int, int, int, int] = WIDTHS) -> None:
        super().__init__()
        full, half, quarter, eighth = widths
        self.stem = nn.Sequential(nn.Conv3d(1, full, 3, padding=1), nn.SiLU(), nn.Conv3d(full, full, 3, padding=1))
        self.down = nn.ModuleList(
            nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in ((full, half), (half, quarter), (quarter, eighth))
        )
        self.encode = nn.ModuleList([Residual(half), Residual(quarter)])
        self.bottom = Residual(eighth)
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2)
            for coarse, fine in ((half, full), (quarter, half), (eighth, quarter))
        )
        self.decode = nn.ModuleList([Residual(half), Residual(quarter)])
        self.refine = nn.Sequential(nn.SiLU(), nn.Conv3d(full, full, 3, padding=1), nn.SiLU())
        self.head = nn.Conv3d(full, 3, 1)

    def features(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features at full and at half resolution, before the output layer."""
        fine = self.stem((image - 0.5) * 6)
        half = self.encode[0](self.down[0](fine))
        quarter = self.encode[1](self.down[1](half))
        eighth = self.bottom(self.down[2](quarter))
        quarter = self.decode[1](quarter + self.up[2](eighth))
        half = self.decode[0](half + self.up[1](quarter))
        return self.refine(fine + self.up[0](half)), half

    def forward(self, image: Tensor) -> Tensor:
        """Return affinity probabilities (batch, 3, z, y, x) of an image (batch, 1, z, y, x)."""
        fine, _ = self.features(image)
        return torch.sigmoid(self.head(fine))


InstantiatedModel = AffinityUNet()
