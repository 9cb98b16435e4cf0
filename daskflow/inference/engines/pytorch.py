"""Networks that torch runs, on a GPU where there is one."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from daskflow.errors import MissingDependencyError, ModelError
from daskflow.geometry import Zyx
from daskflow.inference.answers import check_dtype, check_shape, chosen
from daskflow.inference.engine import Array, Slices
from daskflow.inference.patches import Patch
from daskflow.inference.weights import Shares

try:
    import torch
except ImportError as missing:
    raise MissingDependencyError.of("torch", "torch") from missing

from daskflow.inference.engines.torch_files import load_model

if TYPE_CHECKING:
    from daskflow.inference.network import Network

logger = logging.getLogger(__name__)


class TorchEngine:
    """Runs a torch network: eval mode, inference mode, autocast where a lower precision is asked for.

    Threads take turns, since a network may keep tensors of a pass on itself; torch's own threads use the cores. On a
    GPU the next batch is cut out and copied from pinned memory while the last one is computed, and one block at a time
    uses it. Kernels are those that torch takes by default, not the fastest of a trial, so that a repeated block gives
    the same bytes.

    Raises:
        ModelError: the network does not load.
    """

    def __init__(self, network: Network) -> None:
        if network.model is None:
            raise ModelError("framework pytorch needs a model file")
        self.device = _device(network.device)
        self._on_gpu = self.device.type == "cuda"
        self._network = network
        self._model = load_model(network.model, network.weights, self.device)
        self._precision = getattr(torch, network.dtype)
        self._turn = threading.Lock()
        self._copied: deque[Any] = deque()
        self._layout = torch.contiguous_format
        self._shares: Shares[torch.Tensor] = Shares(network.output_patch, lambda s: torch.from_numpy(s).to(self.device))
        self._halved = False
        self.name = network.name
        self.batch_size = network.batch_size
        self.guard: AbstractContextManager[Any] = threading.Lock() if self._on_gpu else nullcontext()
        self._lay_out()

    def __call__(self, patches: Array) -> Any:
        with self._turn, torch.inference_mode():
            outputs = self._within_memory(patches)
        if self._network.blend == "bump":
            return outputs
        return (outputs.float() if outputs.dtype == torch.bfloat16 else outputs).cpu().numpy()

    def _within_memory(self, patches: Array) -> torch.Tensor:
        try:
            return self._run(patches)
        except torch.OutOfMemoryError as error:
            if self._halved or len(patches) == 1:
                raise ModelError(
                    f"{self.device} has too little memory for {len(patches)} patches of {patches.shape[2:]} zyx"
                    f" in network {self.name}; use a smaller input_patch_size or batch_size, or dtype='float16'"
                ) from error
        self._halved = True
        self.batch_size = size = -(-len(patches) // 2)
        logger.warning("%s ran out of memory; batches are halved to %d patches", self.device, size)
        self.release()
        return torch.cat([self._within_memory(patches[:size]), self._within_memory(patches[size:])])

    def accumulator(self, channels: int, shape: Zyx) -> TorchAccumulator:
        return TorchAccumulator(channels, shape, self.device, self._shares)

    def release(self) -> None:
        if self._on_gpu:
            torch.cuda.empty_cache()

    def _run(self, patches: Array) -> torch.Tensor:
        if not self._on_gpu:
            _use_the_workers_cores()
        fixed = self._model.batch
        if fixed is None:
            return self._checked(self._forward(patches), patches)
        outputs = []
        for start in range(0, len(patches), fixed):
            piece = np.zeros((fixed, *patches.shape[1:]), np.float32)
            used = patches[start : start + fixed]
            piece[: len(used)] = used
            outputs.append(self._checked(self._forward(piece), piece)[: len(used)])
        return torch.cat(outputs)

    def _lay_out(self) -> None:
        """Put channels innermost, which convolves faster, where the network takes it."""
        net = self._model.net
        if not isinstance(net, torch.nn.Module) or isinstance(net, torch.jit.ScriptModule | torch.fx.GraphModule):
            return
        if self._on_gpu and self._precision == torch.float32:
            return
        self._layout = _laid_out(net, torch.channels_last_3d)
        try:
            with torch.inference_mode():
                self._forward(np.zeros((1, self._network.input_channels, *self._network.input_patch), np.float32))
        except (ModelError, torch.OutOfMemoryError):
            # e.g. a network that takes views of its features; one that is broken fails again when it is called
            self._layout = _laid_out(net, torch.contiguous_format)

    def _forward(self, patches: Array) -> Any:
        try:
            return self._answer(patches)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ModelError(
                f"network {self.name} failed on patches of shape {patches.shape} (batch, channel, zyx): {error!r}"
            ) from error

    def _answer(self, patches: Array) -> Any:
        model, lower = self._model, self._precision != torch.float32
        with torch.autocast(self.device.type, dtype=self._precision, enabled=lower):
            inputs = torch.from_numpy(patches) if model.pre_process is None else model.pre_process(patches)
            if isinstance(inputs, torch.Tensor):
                inputs = self._uploaded(inputs)
                inputs = inputs.contiguous(memory_format=self._layout) if inputs.dim() == 5 else inputs
            outputs = model.net(inputs)
            return outputs if model.post_process is None else model.post_process(outputs)

    def _uploaded(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device; a GPU gets at most two batches ahead of what it has begun to compute."""
        if not self._on_gpu or inputs.device.type != "cpu":
            return inputs
        if len(self._copied) == 2:
            self._copied.popleft().synchronize()
        result = inputs.pin_memory().to(self.device, non_blocking=True)
        self._copied.append(torch.cuda.current_stream(self.device).record_event())
        return result

    def _checked(self, outputs: Any, patches: Array) -> torch.Tensor:
        """Return outputs of the declared shape, cut to the output patch, that no later pass overwrites."""
        network = self._network
        outputs = chosen(outputs, network)
        if not isinstance(outputs, torch.Tensor):
            raise ModelError(
                f"network {self.name} answered {type(outputs).__name__}; expected a tensor (batch, channel, zyx):"
                " define post_process in the model file to make it one"
            )
        check_dtype(str(outputs.dtype).removeprefix("torch."), network)
        check_shape(tuple(outputs.shape), len(patches), network, croppable=True)
        if tuple(outputs.shape[2:]) != network.output_patch:
            outputs = outputs[(slice(None), slice(None), *network.middle)]
        dtype = torch.float32 if network.blend == "bump" else outputs.dtype
        result: torch.Tensor = outputs.to(self.device, dtype, copy=True)
        return result


class TorchAccumulator:
    """The sum of outputs that are tensors, on their device."""

    def __init__(self, channels: int, shape: Zyx, device: torch.device, shares: Shares[torch.Tensor]) -> None:
        if device.type == "cpu":
            # calloc'ed huge pages: a third of the time of torch.zeros
            self._sum = torch.from_numpy(np.zeros((channels, *shape), np.float32))
        else:
            self._sum = torch.zeros((channels, *shape), device=device)
        self._shares = shares
        self._added: list[tuple[Patch, torch.Tensor]] = []

    def add(self, at: Slices, output: torch.Tensor, part: Slices, patch: Patch) -> None:
        values = output[(slice(None), *part)]
        self._sum[(slice(None), *at)].addcmul_(values, self._shares(patch.neighbours)[part])
        self._added.append((patch, values.sum()))

    @property
    def suspects(self) -> list[Patch]:
        if not self._added:
            return []
        finite = torch.stack([total for _, total in self._added]).isfinite().tolist()
        return [patch for (patch, _), good in zip(self._added, finite, strict=True) if not good]

    @property
    def result(self) -> Array:
        result: Array = self._sum.cpu().numpy()
        return result


def _use_the_workers_cores() -> None:
    """Let torch use a core for each thread of a Dask worker, which take turns here; Dask gives a process one."""
    distributed = sys.modules.get("distributed")
    try:
        threads = distributed.get_worker().state.nthreads if distributed else 1
    except ValueError:  # no worker runs this
        return
    if threads > torch.get_num_threads():
        torch.set_num_threads(threads)


def _laid_out(net: torch.nn.Module, layout: torch.memory_format) -> torch.memory_format:
    """Lay out the 3D kernels of a network, and return the layout."""
    for parameter in net.parameters():
        if parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return layout


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device {name!r} is none that torch knows; use auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} is asked for and torch finds no GPU; use device='cpu' or 'auto'")
    return device
