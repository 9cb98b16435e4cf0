"""The net of the demo: a small 3D U-Net that separates the inside of a neurite from its membrane.

A model file for the torch engine, executed on its own, so it needs nothing but torch. Input is (batch, 1, z, y, x)
float32 in [0, 1]; output is (batch, 1, z, y, x), the probability that a voxel lies in an interior. A patch size must be
a multiple of 4 on each axis; the output has the size of the input. Trained on phantoms by recipes/train_demo.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3x3x3 convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape (batch, width, z, y, x)."""
        inner = nn.functional.silu(self.first(nn.functional.silu(features)))
        result: Tensor = features + self.second(inner)
        return result


class BoundaryNet(nn.Module):
    """Residual U-Net over three scales with additive skips."""

    def __init__(self, full: int = 8, half: int = 16, quarter: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, full, 3, padding=1), nn.SiLU())
        self.down_half = nn.Conv3d(full, half, 2, stride=2)
        self.encode = Residual(half)
        self.down_quarter = nn.Conv3d(half, quarter, 2, stride=2)
        self.bottom = Residual(quarter)
        self.up_half = nn.ConvTranspose3d(quarter, half, 2, stride=2)
        self.decode = Residual(half)
        self.up_full = nn.ConvTranspose3d(half, full, 2, stride=2)
        self.refine = nn.Sequential(nn.SiLU(), nn.Conv3d(full, full, 3, padding=1), nn.SiLU())
        self.head = nn.Conv3d(full, 1, 1)

    def logits(self, image: Tensor) -> Tensor:
        """Return what the sigmoid is taken of, (batch, 1, z, y, x)."""
        fine = self.stem((image - 0.5) * 4)
        half = self.encode(self.down_half(fine))
        quarter = self.bottom(self.down_quarter(half))
        half = self.decode(half + self.up_half(quarter))
        result: Tensor = self.head(self.refine(fine + self.up_full(half)))
        return result

    def forward(self, image: Tensor) -> Tensor:
        """Return the probability of interior (batch, 1, z, y, x) of an image (batch, 1, z, y, x)."""
        return torch.sigmoid(self.logits(image))


InstantiatedModel = BoundaryNet()
