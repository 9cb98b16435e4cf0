"""No network: the middle of the input, repeated on the channel axis; for tests and rehearsals."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import ModelError
from daskflow.geometry import Zyx
from daskflow.inference.engine import Array, HostAccumulator
from daskflow.inference.weights import Shares

if TYPE_CHECKING:
    from daskflow.inference.network import Network


class IdentityEngine:
    """Answers with the voxels of the output patch, unchanged.

    Raises:
        ModelError: the input has several channels, and not as many as the output.
    """

    guard: AbstractContextManager[Any] = nullcontext()

    def __init__(self, network: Network) -> None:
        if network.input_channels not in (1, network.channels):
            raise ModelError(
                f"identity cannot answer {network.channels} channels from {network.input_channels};"
                " give as many output channels as the volume has"
            )
        self.name = network.name
        self.batch_size = network.batch_size
        self._channels = network.channels
        self._shares = Shares(network.output_patch, np.asarray)
        self._middle = network.middle

    def __call__(self, patches: Array) -> Any:
        middle = patches[(slice(None), slice(None), *self._middle)]
        return np.broadcast_to(middle, (len(middle), self._channels, *middle.shape[2:]))

    def accumulator(self, channels: int, shape: Zyx) -> HostAccumulator:
        return HostAccumulator(channels, shape, self._shares)

    def release(self) -> None:
        pass
