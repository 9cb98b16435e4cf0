"""Networks in ONNX files, which onnxruntime runs."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from daskflow.errors import MissingDependencyError, ModelError
from daskflow.inference.engine import (
    Array,
    Engine,
    check_dtype,
    check_shape,
    chosen,
    failure_of,
    filled_up,
    threads_of_worker,
)
from daskflow.inference.network import Network

try:
    import onnxruntime
except ImportError as missing:
    raise MissingDependencyError.of("onnxruntime", "onnx") from missing

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_GPU = "CUDAExecutionProvider"


class OnnxEngine(Engine):
    """Runs an ONNX file: its inputs are the volumes in order, its outputs have names for `net_output`."""

    def __init__(self, network: Network) -> None:
        assert network.model is not None
        if network.weights is not None:
            raise ModelError(f"model {network.name} holds its own weights; leave out {network.weights.path}")
        super().__init__(network)
        self._turn = threading.Lock()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_of_worker() or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                network.model.content(), options, providers=_providers(network.device)
            )
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"model {network.name} does not load in onnxruntime ({str(error).strip(' .')}); expected an ONNX file"
                " with its weights inside"
            ) from error
        self._inputs = {one.name: _DTYPES.get(one.type) for one in self._session.get_inputs()}
        self._outputs = [one.name for one in self._session.get_outputs()]
        self._fixed = self._session.get_inputs()[0].shape[0]
        volumes = len(network.inputs) or 1
        if len(self._inputs) != volumes or None in self._inputs.values():
            types = ", ".join(f"{one.name} {one.type}" for one in self._session.get_inputs())
            raise ModelError(
                f"model {network.name} takes {types}; expected as many inputs of floats as volumes are given, {volumes}"
            )

    def __call__(self, patches: Array) -> Any:
        with self._turn:
            if not isinstance(self._fixed, int):
                return self._run(patches)
            return np.concatenate([self._run(piece)[:used] for piece, used in filled_up(patches, self._fixed)])

    def _run(self, patches: Array) -> Array:
        network = self._network
        arrays = zip(self._inputs.items(), network.split(patches), strict=True)
        try:
            answers = self._session.run(None, {name: array.astype(dtype) for (name, dtype), array in arrays})
        except Exception as error:
            raise failure_of(network, patches, error) from error
        named = dict(zip(self._outputs, answers, strict=True))
        outputs = chosen(answers[0] if len(answers) == 1 and network.net_output is None else named, network)
        check_dtype(outputs.dtype.name, network)
        check_shape(outputs.shape, len(patches), network, croppable=True)
        if outputs.shape[2:] != network.output_patch:
            outputs = outputs[(slice(None), slice(None), *network.middle)]
        result: Array = outputs.astype(np.float32) if network.blend == "bump" else outputs
        return result


def _providers(device: str) -> list[Any]:
    """Return where onnxruntime computes: a GPU first, if there is one and the CPU was not said."""
    kind, _, number = device.partition(":")
    there = _GPU in onnxruntime.get_available_providers()
    if kind not in ("auto", "cpu", "cuda"):
        raise ModelError(f"device {device!r} is none that onnxruntime knows here; use auto, cpu, cuda or cuda:1")
    if kind == "cuda" and not there:
        raise ModelError(
            f"device {device!r} is asked for and this onnxruntime computes on no GPU: install onnxruntime-gpu, or use"
            " device='cpu' or 'auto'"
        )
    gpu = [(_GPU, {"device_id": int(number or 0)})] if there and kind != "cpu" else []
    return [*gpu, "CPUExecutionProvider"]
