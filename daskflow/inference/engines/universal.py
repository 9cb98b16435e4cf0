"""chunkflow's `PatchInferencer` files: any framework, wrapped by the model's author."""

from __future__ import annotations

import inspect
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import ModelError
from daskflow.inference.answers import check_dtype, check_shape, chosen
from daskflow.inference.engine import Array, HostEngine
from daskflow.inference.engines.python_file import run_model_file

if TYPE_CHECKING:
    from daskflow.inference.network import Network


class UniversalEngine(HostEngine):
    """Runs ``PatchInferencer(weight_path, output_patch_mask)`` of a model file.

    Such a file crops its outputs to the output patch and multiplies them by the mask; the mask it gets is all ones,
    since patches are weighted afterwards.

    Raises:
        ModelError: the file does not run or defines no `PatchInferencer`.
    """

    def __init__(self, network: Network) -> None:
        if network.model is None:
            raise ModelError("framework universal needs a model file")
        kind = getattr(run_model_file(network.model), "PatchInferencer", None)
        if kind is None:
            raise ModelError(
                f"model file {network.name} defines no class PatchInferencer(weight_path, output_patch_mask);"
                " for a file with InstantiatedModel or load_model, pass framework='pytorch'"
            )
        super().__init__(network)
        self._turn = threading.Lock()
        self._inferencer = _construct(kind, network)

    def __call__(self, patches: Array) -> Any:
        with self._turn:
            try:
                answer = self._inferencer(patches)
            except Exception as error:
                raise ModelError(
                    f"network {self.name} failed on patches of shape {patches.shape} (batch, channel, zyx): {error!r}"
                ) from error
            outputs = np.asarray(chosen(answer, self._network))
            check_dtype(outputs.dtype.name, self._network)
            check_shape(outputs.shape, len(patches), self._network, croppable=False)
            # a copy: the inferencer may answer in the same buffer each time
            return np.array(outputs, np.float32 if self._network.blend == "bump" else None)


def _construct(kind: Any, network: Network) -> Any:
    weights = str(network.weights.verified()) if network.weights else None
    mask = np.ones(network.output_patch, np.float32)
    options: dict[str, Any] = {}
    try:
        if "crop_output_patch_margin" in inspect.signature(kind).parameters:
            options["crop_output_patch_margin"] = tuple(side.start for side in network.middle)
        return kind(weights, mask, **options)
    except Exception as error:
        raise ModelError(f"PatchInferencer of {network.name} cannot be made: {error!r}") from error
