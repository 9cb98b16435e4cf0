#!/usr/bin/env python
"""Train the affinity U-Net of affinity_unet.py on one half of the FIB-25 sample.

    python recipes/train_affinities.py --minutes 85

Reads fib25_image.tif and `main` of fib25_labels.h5 from the data folder and uses their first 125 sections, no others:
the last tenth of x of those is held out for validation, the rest is trained on. Writes affinity_unet.safetensors beside
this script every few minutes, so an interrupted run leaves usable weights; its header says where they come from.

The targets come from the labels after augmentation, so flips and transposes need no care of the affinity channels. A
second output layer, used only here, predicts at half resolution whether voxels 4, 10 and 20 apart lie in the same
neuron.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from affinity_unet import AffinityUNet  # noqa: E402

MARGIN = 4
"""Voxels at each face of a patch that the loss leaves out: the net sees no context there."""
FAR = (2, 5, 10)
"""Distances of the auxiliary affinities, in voxels of half resolution."""
FAR_WEIGHT = 0.6
SOURCE = "FIB-25 training_sample2 (janelia-flyem/neuroproof_examples): fib25_image.tif, fib25_labels.h5:main"
UNKNOWN, BACKGROUND = 0, 1
"""Label values while training: outside the volume, label 0 of the file; neurons follow from 2."""


@dataclass(frozen=True)
class Options:
    """What a training run depends on; the defaults are the published run's."""

    data: Path = HERE.parent.parent / "shared" / "data"
    output: Path = HERE / "affinity_unet.safetensors"
    minutes: float = 85.0
    steps: int = 0
    """Train this many steps whatever they take; 0 means as many as fit in `minutes`."""
    sections: int = 125
    patch: int = 64
    rate: float = 2e-3
    seed: int = 2
    threads: int = 1
    save_minutes: float = 5.0
    date: str = "unknown"


@dataclass(frozen=True)
class Half:
    """What training may see: image in [0, 1] and labels, float32 zyx, and the first column for validation."""

    image: Tensor
    labels: Tensor
    split: int


def load_half(options: Options) -> Half:
    """Read the first `options.sections` sections; labels are renumbered from 2, label 0 becomes BACKGROUND."""
    image = tifffile.imread(options.data / "fib25_image.tif")[: options.sections]
    with h5py.File(options.data / "fib25_labels.h5") as file:
        labels = file["main"][: options.sections]
    _, numbered = np.unique(labels, return_inverse=True)
    numbered = np.where(labels == 0, BACKGROUND, numbered.reshape(labels.shape) + 2)
    split = image.shape[2] * 9 // 10
    return Half(
        torch.from_numpy(image.astype(np.float32) / 255),
        torch.from_numpy(numbered.astype(np.float32)),
        split,
    )


def cut_patch(image: Tensor, labels: Tensor, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random cube of side `size`, its axes flipped and transposed at random."""
    starts = [int(torch.randint(0, n - size + 1, (), generator=rng)) for n in image.shape]
    window = tuple(slice(start, start + size) for start in starts)
    order = torch.randperm(3, generator=rng).tolist()
    flips = [axis for axis in range(3) if torch.rand((), generator=rng) < 0.5]
    cut, truth = (v[window].permute(order).flip(flips) for v in (image, labels))
    return cut.clone(), truth.clone()


def rotation(axis: int, angle: float) -> Tensor:
    """Return the 3x3 matrix that turns by `angle` radians about one axis."""
    first, second = (a for a in range(3) if a != axis)
    matrix = torch.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def warp_patch(image: Tensor, labels: Tensor, size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random cube seen through a rotation, a scaling and a smooth deformation; UNKNOWN outside the volume."""
    shape = torch.tensor(image.shape, dtype=torch.float32)
    margin = size * 0.45
    centre = margin + torch.rand(3, generator=rng) * (shape - 1 - 2 * margin).clamp(min=0)
    matrix = torch.eye(3)[torch.randperm(3, generator=rng)]
    matrix = matrix * (torch.randint(0, 2, (3,), generator=rng) * 2 - 1)
    for axis in range(3):
        matrix = matrix @ rotation(axis, float(torch.randn((), generator=rng)) * 0.25)
    matrix = matrix * torch.exp((torch.rand(3, generator=rng) - 0.5) * 0.4)
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    local = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)
    coarse = torch.randn((1, 3, 5, 5, 5), generator=rng) * 1.5
    bend = functional.interpolate(coarse, size=(size,) * 3, mode="trilinear", align_corners=True)
    where = centre + local @ matrix + bend[0].permute(1, 2, 3, 0)
    grid = (where / (shape - 1) * 2 - 1).flip(-1)[None]
    cut = functional.grid_sample(
        image[None, None], grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )
    truth = functional.grid_sample(labels[None, None], grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return cut[0, 0], truth[0, 0]


def jitter(image: Tensor, rng: torch.Generator) -> Tensor:
    """Vary contrast, brightness, gamma and noise, and now and then blur or dim whole sections."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=rng))

    image = image.clamp(0, 1) ** math.exp(uniform(-0.3, 0.3))
    image = (image - 0.5) * uniform(0.75, 1.3) + 0.5 + uniform(-0.12, 0.12)
    if uniform(0, 1) < 0.15:
        image = functional.avg_pool3d(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    if uniform(0, 1) < 0.5:
        image = image + torch.randn(image.shape, generator=rng) * uniform(0, 0.06)
    if uniform(0, 1) < 0.1:
        image = image + torch.randn((image.shape[0], 1, 1), generator=rng) * 0.05
    return image


def neighbours(values: Tensor, axis: int, distance: int) -> tuple[Tensor, Tensor]:
    """Return (voxel, the one `distance` lower on `axis`) as two views, padded by repeating so that shapes stay."""
    length = values.shape[axis]
    lower = torch.arange(length).sub_(distance).clamp_(min=0)
    return values, values.index_select(axis, lower)


def affinities(labels: Tensor, distances: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return (target, known), each (3 * len(distances), z, y, x); per distance the axes are x, y, z."""
    targets, known = [], []
    for distance in distances:
        for axis in (2, 1, 0):
            here, there = neighbours(labels, axis, distance)
            targets.append((here == there) & (here > BACKGROUND))
            valid = (here != UNKNOWN) & (there != UNKNOWN)
            valid.narrow(axis, 0, min(distance, labels.shape[axis])).fill_(False)
            known.append(valid)
    return torch.stack(targets).float(), torch.stack(known).float()


def balanced_loss(logits: Tensor, target: Tensor, known: Tensor, same: float) -> Tensor:
    """Return the mean cross entropy where `known`, both classes weighing alike when a share `same` of targets is 1."""
    weight = known * torch.where(target > 0, 0.5 / same, 0.5 / (1 - same))
    loss = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    return loss / weight.sum().clamp(min=1)


def interior(values: Tensor, margin: int = MARGIN) -> Tensor:
    """Return the last three axes without `margin` voxels at each end."""
    return values[..., margin:-margin, margin:-margin, margin:-margin]


@torch.no_grad()
def validate(net: AffinityUNet, half: Half, same: float) -> tuple[float, float]:
    """Return (balanced cross entropy, balanced error rate) on the held-out columns, with 8 columns of context."""
    begin = max(half.split - 8, 0)
    size = [n // 8 * 8 for n in (*half.image.shape[:2], half.image.shape[2] - begin)]
    window = (slice(size[0]), slice(size[1]), slice(begin, begin + size[2]))
    fine, _ = net.features(half.image[window][None, None])
    logits = net.head(fine)[0]
    target, known = affinities(half.labels[window], (1,))
    known[..., : half.split - begin] = 0
    loss = balanced_loss(interior(logits), interior(target), interior(known), same)
    wrong = ((logits > 0) != (target > 0)).float() * known
    rates = [float((wrong * (target == c)).sum() / (known * (target == c)).sum().clamp(min=1)) for c in (0, 1)]
    return float(loss), sum(rates) / 2


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, step: int) -> None:
    """Move the exponential moving average of the weights one step; its memory is 670 steps, less at the start."""
    keep = min(0.9985, (1 + step) / (10 + step))
    for mean, value in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)


def write_weights(net: nn.Module, path: Path, provenance: dict[str, str]) -> None:
    """Write float32 weights with their provenance in the header, replacing the file in one move."""
    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata=provenance)
    part.replace(path)


class Trainer:
    """The state of one run: nets, optimiser, random numbers and the clock."""

    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.options = options
        self.rng = torch.Generator().manual_seed(options.seed)
        self.half = load_half(options)
        self.image = self.half.image[:, :, : self.half.split].contiguous()
        self.labels = self.half.labels[:, :, : self.half.split].contiguous()
        self.same = float(affinities(self.labels, (1,))[0].mean())
        self.net = AffinityUNet().to(memory_format=torch.channels_last_3d)
        self.average = copy.deepcopy(self.net)
        half_width = self.net.decode[0].first.in_channels
        self.far = nn.Conv3d(half_width, 3 * len(FAR), 1)
        self.parameters = [*self.net.parameters(), *self.far.parameters()]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-2)
        self.start = time.monotonic()
        self.step = 0

    def progress(self) -> float:
        """Return the share of the run that is done, 0 to 1."""
        if self.options.steps:
            return self.step / self.options.steps
        return (time.monotonic() - self.start) / (60 * self.options.minutes)

    def sample(self) -> tuple[Tensor, Tensor]:
        """Return one augmented (image, labels) cube."""
        cut = warp_patch if torch.rand((), generator=self.rng) < 0.6 else cut_patch
        image, labels = cut(self.image, self.labels, self.options.patch, self.rng)
        return jitter(image, self.rng), labels

    def train_step(self, progress: float) -> float:
        """Take one optimiser step and return its loss."""
        rate = self.options.rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = max(rate, 1e-6) * min(1, (self.step + 1) / 100)
        image, labels = self.sample()
        target, known = affinities(labels, (1,))
        far_target, far_known = affinities(labels[::2, ::2, ::2], FAR)
        batch = image[None, None].to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            fine, half = self.net.features(batch)
            logits, far = self.net.head(fine)[0].float(), self.far(half)[0].float()
        near_loss = balanced_loss(interior(logits), interior(target), interior(known), self.same)
        far_loss = functional.binary_cross_entropy_with_logits(far, far_target, far_known, reduction="sum")
        loss = near_loss + FAR_WEIGHT * far_loss / far_known.sum().clamp(min=1)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        follow(self.average, self.net, self.step)
        return float(near_loss.detach())

    def save(self) -> float:
        """Validate the averaged weights, write them and return their validation loss."""
        loss, error = validate(self.average, self.half, self.same)
        minutes = (time.monotonic() - self.start) / 60
        columns = self.half.image.shape[2]
        provenance = {
            "script": "recipes/train_affinities.py",
            "model": "recipes/affinity_unet.py",
            "data": SOURCE,
            "half": f"z < {self.options.sections}; validation x >= {self.half.split} of {columns}",
            "seed": str(self.options.seed),
            "steps": str(self.step),
            "minutes": f"{minutes:.1f}",
            "patch": str(self.options.patch),
            "threads": str(self.options.threads),
            "torch": torch.__version__,
            "date": self.options.date,
            "validation_loss": f"{loss:.4f}",
            "validation_balanced_error": f"{error:.4f}",
        }
        write_weights(self.average, self.options.output, provenance)
        print(f"step {self.step}  validation loss {loss:.4f}  balanced error {error:.4f}", flush=True)
        return loss


def train(options: Options) -> list[float]:
    """Run a whole training and return the loss of every step."""
    run = Trainer(options)
    print(f"share of affinities that are 1: {run.same:.3f}; parameters: {sum(p.numel() for p in run.net.parameters())}")
    losses: list[float] = []
    told = saved = time.monotonic()
    while (progress := run.progress()) < 1:
        losses.append(run.train_step(progress))
        now = time.monotonic()
        if now - told > 20:
            told, done, elapsed = now, run.progress(), now - run.start
            rate, left = run.step / elapsed, elapsed * (1 - done) / max(done, 1e-6) / 60
            recent = losses[-200:]
            loss = sum(recent) / len(recent)
            print(f"step {run.step}  loss {loss:.4f}  {rate:.2f} steps/s  ETA {left:.1f} min", flush=True)
        if now - saved > 60 * options.save_minutes:
            saved = now
            run.save()
    run.save()
    return losses


def parse(words: list[str] | None = None) -> Options:
    """Return the options of a command line; every field of Options is one."""
    default = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(default).items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(value), default=value, help=f"default {value}")
    return Options(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    train(parse())
