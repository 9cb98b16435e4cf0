#!/usr/bin/env python
"""Train the net of the demo on phantoms of other seeds than the demo shows.

    python recipes/train_demo.py

Takes a few minutes of one core and writes daskflow/demo/boundary_net.safetensors, with its provenance in the header.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from daskflow.demo.boundary_net import BoundaryNet
from daskflow.demo.phantom import phantom

FIRST_SEED = 1000
"""Phantoms of this seed and the following ones are trained on; the demo and the tests use small seeds."""


@dataclass(frozen=True)
class Options:
    """What a training run depends on; the defaults are the published run's."""

    output: Path = Path(__file__).resolve().parent.parent / "daskflow" / "demo" / "boundary_net.safetensors"
    phantoms: int = 12
    size: int = 144
    """Side of a phantom in y and x; it is half as deep."""
    steps: int = 2000
    batch: int = 4
    rate: float = 4e-3
    seed: int = 0
    threads: int = 1
    date: str = "unknown"


def make_pool(options: Options) -> list[tuple[Tensor, Tensor]]:
    """Return (image in [0, 1], interior 0 or 1) of every phantom, float32 zyx."""
    shape = (options.size // 2, options.size, options.size)
    pairs = (phantom(shape, seed=FIRST_SEED + index) for index in range(options.phantoms))
    return [(torch.from_numpy(image).float() / 255, torch.from_numpy(labels > 0).float()) for image, labels in pairs]


def draw_batch(pool: list[tuple[Tensor, Tensor]], count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (image, interior) of `count` random patches 16x64x64, flipped and transposed, with contrast jitter."""
    images, truths = [], []
    for _ in range(count):
        image, truth = pool[int(torch.randint(len(pool), (), generator=rng))]
        window = []
        for length, size in zip(image.shape, (16, 64, 64), strict=True):
            start = int(torch.randint(length - size + 1, (), generator=rng))
            window.append(slice(start, start + size))
        flips = [axis for axis in range(3) if torch.rand((), generator=rng) < 0.5]
        order = (0, 2, 1) if torch.rand((), generator=rng) < 0.5 else (0, 1, 2)
        contrast, brightness = torch.rand(2, generator=rng).tolist()
        cut, inside = (v[tuple(window)].permute(order).flip(flips) for v in (image, truth))
        images.append((cut - 0.5) * (0.85 + 0.3 * contrast) + 0.45 + 0.1 * brightness)
        truths.append(inside)
    return torch.stack(images)[:, None], torch.stack(truths)[:, None]


def train(options: Options) -> list[float]:
    """Train, write the weights and return the loss of every step."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = torch.Generator().manual_seed(options.seed)
    pool = make_pool(options)
    share = float(torch.stack([truth.mean() for _, truth in pool]).mean())
    net = BoundaryNet().to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(net.parameters(), lr=options.rate, betas=(0.9, 0.99))
    losses: list[float] = []
    start = told = time.monotonic()
    for step in range(options.steps):
        rate = options.rate * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50)
        image, truth = draw_batch(pool, options.batch, rng)
        weight = torch.where(truth > 0, 0.5 / share, 0.5 / (1 - share))
        with torch.autocast("cpu", torch.bfloat16):
            logits = net.logits(image.contiguous(memory_format=torch.channels_last_3d)).float()
        loss = functional.binary_cross_entropy_with_logits(logits, truth, weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(float(loss.detach()))
        if time.monotonic() - told > 20:
            told = time.monotonic()
            speed, recent = (step + 1) / (told - start), losses[-100:]
            left = (options.steps - step) / speed
            mean = sum(recent) / len(recent)
            print(f"step {step + 1}  loss {mean:.4f}  {speed:.1f} steps/s  ETA {left:.0f} s", flush=True)
    recent = losses[-100:]
    provenance = {
        "script": "recipes/train_demo.py",
        "model": "daskflow/demo/boundary_net.py",
        "data": f"synthetic: daskflow.demo.phantom, seeds {FIRST_SEED} to {FIRST_SEED + options.phantoms - 1}",
        "seed": str(options.seed),
        "steps": str(options.steps),
        "torch": torch.__version__,
        "date": options.date,
        "training_loss": f"{sum(recent) / len(recent):.4f}",
    }
    tensors = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(tensors, options.output, metadata=provenance)
    return losses


def parse(words: list[str] | None = None) -> Options:
    """Return the options of a command line; every field of Options is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Options()).items():
        parser.add_argument("--" + name, type=type(value), default=value, help=f"default {value}")
    return Options(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    train(parse())
