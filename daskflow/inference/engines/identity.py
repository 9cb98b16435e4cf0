"""No network: the middle of the input, repeated on the channel axis; for tests and rehearsals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import ModelError
from daskflow.inference.engine import Array, HostEngine

if TYPE_CHECKING:
    from daskflow.inference.network import Network


class IdentityEngine(HostEngine):
    """Answers with the voxels of the output patch, unchanged.

    Raises:
        ModelError: the input has several channels, and not as many as the output.
    """

    def __init__(self, network: Network) -> None:
        if network.input_channels not in (1, network.channels):
            raise ModelError(
                f"identity cannot answer {network.channels} channels from {network.input_channels};"
                " give as many output channels as the volume has"
            )
        super().__init__(network)

    def __call__(self, patches: Array) -> Any:
        middle = patches[(slice(None), slice(None), *self._network.middle)]
        return np.broadcast_to(middle, (len(middle), self._network.channels, *middle.shape[2:]))
