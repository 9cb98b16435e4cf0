"""The command lines of chunkflow's README and tutorials, as they are written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

NET = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        time.sleep({seconds})
        near = torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1) * self.scale
        return torch.cat([near / (n + 1) for n in range({channels})], dim=1)

InstantiatedModel = Net()
"""

_ROWS = Path(__file__).with_suffix(".tsv").read_text().splitlines()
LINES = dict(row.split("\t") for row in _ROWS if not row.startswith("#"))


def words(name: str, **places: object) -> list[str]:
    """Return the words of a line; `places` stand for its words in braces and its variables."""
    line = re.sub(r"\$?\{(\w+)\}|\$(\w+)", lambda found: str(places[found[1] or found[2]]), LINES[name])
    return shlex.split(line)


def write_network(channels: int, model: str, weights: str, seconds: float = 0) -> None:
    """Write a network and its weights; it takes some seconds for each batch."""
    import torch

    Path(model).write_text(NET.format(channels=channels, seconds=seconds))
    torch.save({"scale": torch.full((1,), 0.9)}, weights)
