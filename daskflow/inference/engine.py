"""What runs a network, and what adds its patches up."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from daskflow.errors import ModelError
from daskflow.geometry import Zyx
from daskflow.inference.patches import Patch
from daskflow.inference.weights import Shares

if TYPE_CHECKING:
    from daskflow.inference.network import Network

Array = np.ndarray[Any, np.dtype[Any]]
Slices = tuple[slice, slice, slice]


class Accumulator(Protocol):
    """The sum of weighted patches over one box, held where the network's outputs are."""

    @property
    def suspects(self) -> list[Patch]:
        """The patches whose added part may hold a NaN or an infinity; the others hold none."""

    @property
    def result(self) -> Array:
        """The sum, czyx, on the host."""

    def add(self, at: Slices, output: Any, part: Slices, patch: Patch) -> None:
        """Add the share of a patch that falls into the box.

        Args:
            at: where in the box it falls.
            output: the network's whole output for the patch, czyx.
            part: the part of `output` that falls into the box.
            patch: which patch it is.
        """


class Engine(Protocol):
    """A loaded network.

    Attributes:
        name: names it to people.
        batch_size: patches per call; an engine that runs out of memory lowers it.
        guard: held by whoever answers for a box, where a device has room for one box at a time.
    """

    name: str
    batch_size: int
    guard: AbstractContextManager[Any]

    def __call__(self, patches: Array) -> Any:
        """Return the outputs of some patches (batch, channels, and an output patch zyx).

        They are float32 on the engine's device or, where they are not blended, arrays of the network's own type on the
        host; later calls leave them alone. Threads take turns, for a network may keep tensors of a pass on itself.

        Args:
            patches: float32 (batch, channels, and an input patch zyx) on the host, overwritten after the call's
                outputs were added up.

        Raises:
            ModelError: the network failed, or its output is not what was declared.
        """

    def accumulator(self, channels: int, shape: Zyx) -> Accumulator:
        """Return an empty sum for a box of `shape` voxels on the engine's device."""

    def release(self) -> None:
        """Give back what was only kept to make the next call faster."""


class Mosaic:
    """Outputs side by side, each voxel from one patch, in the type of the outputs.

    Args:
        channels: of the outputs.
        shape: voxels of the box (zyx).
        dtype: the type that was declared.
        name: names the network to people.
    """

    def __init__(self, channels: int, shape: Zyx, dtype: np.dtype[Any], name: str) -> None:
        self.result = np.zeros((channels, *shape), dtype)
        self._name = name
        self.suspects: list[Patch] = []

    def add(self, at: Slices, output: Any, part: Slices, patch: Patch) -> None:
        values = output[(slice(None), *part)]
        if values.dtype != self.result.dtype:
            raise ModelError(
                f"network {self._name} answered {values.dtype} for patch {patch.output}, and {self.result.dtype} when"
                " it was tried; make it answer one type"
            )
        self.result[(slice(None), *at)] = values
        if not np.isfinite(values).all():
            self.suspects.append(patch)


class HostAccumulator:
    """The sum of outputs that are ndarrays."""

    def __init__(self, channels: int, shape: Zyx, shares: Shares[Array]) -> None:
        self.result = np.zeros((channels, *shape), np.float32)
        self._shares = shares
        self.suspects: list[Patch] = []

    def add(self, at: Slices, output: Any, part: Slices, patch: Patch) -> None:
        share = self._shares(patch.neighbours)[part]
        weighted = np.empty(share.shape, np.float32)
        finite = True
        for total, values in zip(self.result[(slice(None), *at)], output[(slice(None), *part)], strict=True):
            np.multiply(values, share, out=weighted)
            finite = finite and bool(np.isfinite(weighted).all())
            total += weighted
        if not finite:
            self.suspects.append(patch)


class HostEngine:
    """What engines have in common whose outputs are ndarrays."""

    guard: AbstractContextManager[Any] = nullcontext()

    def __init__(self, network: Network) -> None:
        self.name = network.name
        self.batch_size = network.batch_size
        self._network = network
        self._shares = Shares(network.output_patch, np.asarray)

    def accumulator(self, channels: int, shape: Zyx) -> HostAccumulator:
        return HostAccumulator(channels, shape, self._shares)

    def release(self) -> None:
        pass
