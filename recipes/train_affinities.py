#!/usr/bin/env python
"""Train the affinity U-Net of affinity_unet.py on FIB-25, or that of section_unet.py on ISBI 2012.

    python recipes/train_affinities.py --minutes 85
    python recipes/train_affinities.py --dataset isbi2012 --minutes 50

Reads fib25_image.tif and `main` of fib25_labels.h5, or isbi2012_image.tif and isbi2012_membranes.tif, from the data
folder and uses their first 125 or 20 sections, no others: the last tenth of x of those is held out for validation, the
rest is trained on. Writes the weights beside this script every few minutes, so an interrupted run leaves usable ones;
their header says where they come from.

The targets come from the labels after augmentation, so flips and transposes need no care of the affinity channels. A
second output layer, used only here, predicts at half resolution whether voxels 4, 10 and 20 apart lie in the same
neuron. Of ISBI 2012 the truth is where membranes are: neurons are what they part in each section, and there are no
affinities along z. A step takes one cube of `--patch` voxels, or `--batch` squares.
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

import segment_isbi2012 as isbi2012  # noqa: E402
from affinity_unet import AffinityUNet  # noqa: E402
from section_unet import SectionUNet  # noqa: E402

MARGIN = 4
"""Voxels at each face of a patch that the loss leaves out: the net sees no context there."""
FAR = (2, 5, 10)
"""Distances of the auxiliary affinities, in voxels of half resolution."""
FAR_WEIGHT = 0.6
SOURCES = {
    "fib25": "FIB-25 training_sample2 (janelia-flyem/neuroproof_examples): fib25_image.tif, fib25_labels.h5:main",
    "isbi2012": "ISBI 2012 challenge (Arganda-Carreras et al. 2015): isbi2012_image.tif, isbi2012_membranes.tif",
}
AXES = (2, 1, 0)
UNKNOWN, BACKGROUND = 0, 1
"""Label values while training: outside the volume, label 0 of the file; neurons follow from 2."""


@dataclass(frozen=True)
class Options:
    """What a training run depends on; the defaults are the published run's."""

    dataset: str = "fib25"
    data: Path = HERE.parent.parent / "shared" / "data"
    output: Path = HERE / "affinity_unet.safetensors"
    minutes: float = 85.0
    steps: int = 0
    """Train this many steps whatever they take; 0 means as many as fit in `minutes`."""
    sections: int = 125
    patch: int = 64
    rate: float = 2e-3
    batch: int = 1
    seed: int = 2
    threads: int = 1
    save_minutes: float = 5.0
    date: str = "unknown"


DEFAULTS = {
    "fib25": Options(),
    "isbi2012": Options(
        dataset="isbi2012", output=HERE / "section_unet.safetensors", minutes=50.0, sections=20, patch=192, batch=3
    ),
}


@dataclass(frozen=True)
class Half:
    """What training may see: image in [0, 1] and labels, float32 zyx, and the first column for validation.

    Labels go on over sections, or where the sections are `apart` stay within one.
    """

    image: Tensor
    labels: Tensor
    split: int
    apart: bool

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of affinities, in the order of the channels."""
        return AXES[:2] if self.apart else AXES

    def batch(self, image: Tensor) -> Tensor:
        """Return what a net takes of an image zyx: sections one by one, or the whole."""
        if self.apart:
            return image[:, None].to(memory_format=torch.channels_last)
        return image[None, None].to(memory_format=torch.channels_last_3d)

    def answer(self, batch: Tensor) -> Tensor:
        """Return a net's answer to a `batch`, channel first."""
        return batch.transpose(0, 1) if self.apart else batch[0]

    def coarse(self, labels: Tensor) -> Tensor:
        """Return labels at half resolution."""
        return labels[:, ::2, ::2] if self.apart else labels[::2, ::2, ::2]


def load_half(options: Options) -> Half:
    """Read the first `options.sections` sections; labels are renumbered from 2, label 0 becomes BACKGROUND."""
    apart = options.dataset == "isbi2012"
    image = tifffile.imread(options.data / f"{options.dataset}_image.tif")[: options.sections]
    if apart:
        labels = isbi2012.profiles(tifffile.imread(options.data / "isbi2012_membranes.tif")[: options.sections])
    else:
        with h5py.File(options.data / "fib25_labels.h5") as file:
            labels = file["main"][: options.sections]
    _, numbered = np.unique(labels, return_inverse=True)
    numbered = np.where(labels == 0, BACKGROUND, numbered.reshape(labels.shape) + 2)
    split = image.shape[2] * 9 // 10
    return Half(
        torch.from_numpy(image.astype(np.float32) / 255),
        torch.from_numpy(numbered.astype(np.float32)),
        split,
        apart,
    )


def shuffled(shape: tuple[int, ...], rng: torch.Generator) -> list[int]:
    """Return the axes in random order, those of one voxel in their place."""
    wide = [axis for axis, length in enumerate(shape) if length > 1]
    others = iter(torch.randperm(len(wide), generator=rng).tolist())
    return [wide[next(others)] if axis in wide else axis for axis in range(len(shape))]


def cut_patch(image: Tensor, labels: Tensor, shape: tuple[int, ...], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random cube or square of this shape, its axes flipped and transposed at random."""
    starts = [int(torch.randint(0, n - m + 1, (), generator=rng)) for n, m in zip(image.shape, shape, strict=True)]
    window = tuple(slice(start, start + length) for start, length in zip(starts, shape, strict=True))
    order = shuffled(shape, rng)
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


def warp_patch(image: Tensor, labels: Tensor, shape: tuple[int, ...], rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random cube, or square of one section, rotated, scaled and bent; UNKNOWN outside the volume."""
    last = torch.tensor(image.shape, dtype=torch.float32) - 1
    margin = (torch.tensor(shape) - 1) * 0.45
    centre = margin + torch.rand(3, generator=rng) * (last - 2 * margin).clamp(min=0)
    matrix = torch.eye(3)[shuffled(shape, rng)]
    matrix = matrix * (torch.randint(0, 2, (3,), generator=rng) * 2 - 1)
    for axis in range(3) if shape[0] > 1 else (0,):
        matrix = matrix @ rotation(axis, float(torch.randn((), generator=rng)) * 0.25)
    matrix = matrix * torch.exp((torch.rand(3, generator=rng) - 0.5) * 0.4)
    steps = [torch.arange(length, dtype=torch.float32) - (length - 1) / 2 for length in shape]
    local = torch.stack(torch.meshgrid(*steps, indexing="ij"), dim=-1)
    coarse = torch.randn((1, 3, *(min(length, 5) for length in shape)), generator=rng) * 1.5
    bend = functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    where = centre + local @ matrix + bend[0].permute(1, 2, 3, 0)
    if shape[0] == 1:
        where[..., 0] = torch.randint(image.shape[0], (), generator=rng)
    grid = (where / last * 2 - 1).flip(-1)[None]
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
        width = [min(length, 3) for length in image.shape]
        padding = [length // 2 for length in width]
        image = functional.avg_pool3d(image[None], width, stride=1, padding=padding, count_include_pad=False)[0]
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


def affinities(labels: Tensor, distances: tuple[int, ...], axes: tuple[int, ...] = AXES) -> tuple[Tensor, Tensor]:
    """Return (target, known), each (len(axes) * len(distances), z, y, x); per distance the axes are x, y, z."""
    targets, known = [], []
    for distance in distances:
        for axis in axes:
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


def interior(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return values (channel, z, y, x) without MARGIN voxels at the ends of these axes."""
    for axis in axes:
        values = values.narrow(axis + 1, MARGIN, values.shape[axis + 1] - 2 * MARGIN)
    return values


@torch.no_grad()
def validate(net: AffinityUNet, half: Half, same: float) -> tuple[float, float]:
    """Return (balanced cross entropy, balanced error rate) on the held-out columns, with 8 columns of context."""
    begin = max(half.split - 8, 0)
    fold = 2 ** len(net.down)
    size = [n // fold * fold for n in (*half.image.shape[:2], half.image.shape[2] - begin)]
    window = (slice(None if half.apart else size[0]), slice(size[1]), slice(begin, begin + size[2]))
    fine, _ = net.features(half.batch(half.image[window]))
    logits = half.answer(net.head(fine))
    target, known = affinities(half.labels[window], (1,), half.axes)
    known[..., : half.split - begin] = 0
    loss = balanced_loss(*(interior(one, half.axes) for one in (logits, target, known)), same)
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
        self.same = float(affinities(self.labels, (1,), self.half.axes)[0].mean())
        self.net = SectionUNet() if self.half.apart else AffinityUNet()
        self.net.to(memory_format=torch.channels_last if self.half.apart else torch.channels_last_3d)
        self.average = copy.deepcopy(self.net)
        half_width = self.net.decode[0].first.in_channels
        self.far = type(self.net.head)(half_width, len(self.half.axes) * len(FAR), 1)
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
        """Return one augmented (image, labels): a cube, or a stack of squares."""
        side = self.options.patch
        shape = (1 if self.half.apart else side, side, side)
        images, labels = [], []
        for _ in range(self.options.batch if self.half.apart else 1):
            cut = warp_patch if torch.rand((), generator=self.rng) < 0.6 else cut_patch
            image, truth = cut(self.image, self.labels, shape, self.rng)
            images.append(jitter(image, self.rng))
            labels.append(truth)
        return torch.cat(images), torch.cat(labels)

    def train_step(self, progress: float) -> float:
        """Take one optimiser step and return its loss."""
        rate = self.options.rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1)))
        for group in self.optimiser.param_groups:
            group["lr"] = max(rate, 1e-6) * min(1, (self.step + 1) / 100)
        image, labels = self.sample()
        axes = self.half.axes
        target, known = affinities(labels, (1,), axes)
        far_target, far_known = affinities(self.half.coarse(labels), FAR, axes)
        with torch.autocast("cpu", torch.bfloat16):
            fine, half = self.net.features(self.half.batch(image))
            answers = self.net.head(fine), self.far(half)
        logits, far = (self.half.answer(one).float() for one in answers)
        near_loss = balanced_loss(*(interior(one, axes) for one in (logits, target, known)), self.same)
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
            "model": f"recipes/{'section' if self.half.apart else 'affinity'}_unet.py",
            "data": SOURCES[self.options.dataset],
            "half": f"z < {self.options.sections}; validation x >= {self.half.split} of {columns}",
            "seed": str(self.options.seed),
            "steps": str(self.step),
            "minutes": f"{minutes:.1f}",
            "patch": str(self.options.patch),
            "batch": str(self.options.batch),
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
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--dataset", choices=DEFAULTS, default="fib25", help="default fib25; others depend on it")
    default = DEFAULTS[first.parse_known_args(words)[0].dataset]
    parser = argparse.ArgumentParser(
        parents=[first], description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in list(vars(default).items())[1:]:
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    return Options(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    train(parse())
