"""Networks that torch runs, on a GPU where there is one: Python model files, TorchScript archives, exported programs.

Weights are tensors and nothing else: pickled code in a weight file, or in an exported program, is refused and not run.
A model itself is a program, whatever its format; open those you trust.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
import zipfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import MissingDependencyError, ModelError
from daskflow.geometry import Zyx
from daskflow.inference.bumps import Shares
from daskflow.inference.engine import (
    Array,
    Engine,
    Slices,
    check_dtype,
    check_shape,
    chosen,
    failure_of,
    filled_up,
    threads_of_worker,
)
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import Patch
from daskflow.inference.python_file import run_model_file
from daskflow.stores.counting import count

try:
    import torch
except ImportError as missing:
    raise MissingDependencyError.of("torch", "torch") from missing

from daskflow.inference.state_dicts import fill, first_line, is_torchscript, read_weights

logger = logging.getLogger(__name__)


class TorchEngine(Engine):
    """Runs a torch network: eval mode, inference mode, autocast where a lower precision is asked for.

    Threads take turns, since a network may keep tensors of a pass on itself; torch's own threads use the cores. On a
    GPU the next batch is cut out and copied from pinned memory while the last one is computed, and one block at a time
    uses it. Kernels are those that torch takes by default, not the fastest of a trial, so that a repeated block gives
    the same bytes.
    """

    def __init__(self, network: Network) -> None:
        assert network.model is not None
        self.device = _device(network.device)
        self._on_gpu = self.device.type == "cuda"
        super().__init__(network)
        self._model = load_model(network.model, network.weights, self.device)
        self._precision = getattr(torch, network.dtype)
        self._turn = threading.Lock()
        self._copied: deque[Any] = deque()
        self._layout = torch.contiguous_format
        self._shares: Shares[torch.Tensor] = Shares(
            network.output_patch, network.bump, lambda share: torch.from_numpy(share).to(self.device)
        )
        if self._on_gpu:
            self.guard = threading.Lock()
        self._lay_out()
        if network.compile:
            self._compile()

    def __call__(self, patches: Array) -> Any:
        with self._turn, torch.inference_mode():
            outputs = self._within_memory(patches)
        if self._network.blend == "bump":
            return outputs
        return (outputs.float() if outputs.dtype == torch.bfloat16 else outputs).cpu().numpy()

    def _within_memory(self, patches: Array) -> torch.Tensor:
        outputs: list[torch.Tensor] = []
        left, size = patches, len(patches)
        while len(left):
            batch = left[:size]
            try:
                outputs.append(self._run(batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ModelError(
                        f"{self.device} has too little memory for a single patch of {patches.shape[2:]} zyx in network"
                        f" {self.name}; use a smaller input_patch_size, or dtype='float16'"
                    ) from error
            else:
                left = left[size:]
                continue
            # not before: the error keeps what the pass had allocated
            size = self._halve(len(batch))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _halve(self, batch: int) -> int:
        self.batch_size = size = -(-batch // 2)
        logger.warning("%s ran out of memory; batches are halved to %d patches", self.device, size)
        count(f"batches_halved_to_{size}_patches")
        self.release()
        return size

    def accumulator(self, channels: int, shape: Zyx) -> TorchAccumulator:
        return TorchAccumulator(channels, shape, self.device, self._shares)

    def release(self) -> None:
        if self._on_gpu:
            torch.cuda.empty_cache()

    def _run(self, patches: Array) -> torch.Tensor:
        if not self._on_gpu:
            _use_the_workers_cores()
        fixed = self._model.batch or (self.batch_size if self._network.compile else None)
        if fixed is None:
            return self._checked(self._forward(patches), patches)
        pieces = filled_up(patches, fixed)
        outputs = [self._checked(self._forward(piece), piece)[:used] for piece, used in pieces]
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

    def _compile(self) -> None:
        """Compile the network for whole batches, to which others are filled up, so that all go through one program."""
        net = self._model.net
        if isinstance(net, torch.jit.ScriptModule):
            raise ModelError(
                f"model {self.name} is TorchScript, which torch.compile does not take: leave compile out (--compile),"
                " or give the model's .py file or an exported program (.pt2)"
            )
        batch = np.zeros((self.batch_size, self._network.input_channels, *self._network.input_patch), np.float32)
        with torch.inference_mode():
            self._within_memory(batch)  # what is wrong with the network itself is reported as that
            self._model = replace(self._model, net=torch.compile(net, dynamic=False))
            try:
                self._within_memory(batch)
            except ModelError as error:
                raise ModelError(
                    f"torch.compile fails on network {self.name}: {first_line(error.__cause__ or error)};"
                    " leave compile out (--compile), or install what is missing on all workers, e.g. a C++ compiler"
                ) from error

    def _forward(self, patches: Array) -> Any:
        try:
            return self._answer(patches)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise failure_of(self._network, patches, error) from error

    def _answer(self, patches: Array) -> Any:
        model, lower = self._model, self._precision != torch.float32
        with torch.autocast(self.device.type, dtype=self._precision, enabled=lower):
            arrays = self._network.split(patches)
            inputs = tuple(map(torch.from_numpy, arrays)) if model.pre_process is None else model.pre_process(*arrays)
            if model.pre_process is not None and not (len(arrays) > 1 and isinstance(inputs, tuple)):
                inputs = (inputs,)
            outputs = model.net(*map(self._placed, inputs))
            return outputs if model.post_process is None else model.post_process(outputs)

    def _placed(self, inputs: Any) -> Any:
        """Return what a network takes, on the device where it is a tensor, and laid out as its kernels."""
        if not isinstance(inputs, torch.Tensor):
            return inputs
        inputs = self._uploaded(inputs)
        return inputs.contiguous(memory_format=self._layout) if inputs.dim() == 5 else inputs

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
        values, share = output[(slice(None), *part)], self._shares(patch.neighbours)[part]
        weighted = torch.empty_like(share)
        for total, answers in zip(self._sum[(slice(None), *at)], values, strict=True):
            # rounded before it is added, as where the two are done by different blocks
            total.add_(torch.mul(answers, share, out=weighted))
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
    threads = threads_of_worker()
    if threads is not None and threads > torch.get_num_threads():
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


@dataclass(frozen=True)
class TorchModel:
    """A network ready to be called, with what makes its input of float32 ndarrays, and tensors of its output.

    `batch` is the only batch size it accepts; None for any.
    """

    net: Callable[..., Any]
    pre_process: Callable[..., Any] | None = None
    post_process: Callable[..., Any] | None = None
    batch: int | None = None


def load_model(model: ModelFile, weights: ModelFile | None, device: torch.device) -> TorchModel:
    """Return a network in eval mode on `device`: of a chunkflow model file with weights, or of an archive without."""
    suffix = Path(model.path).suffix.lower()
    if suffix == ".py":
        return _python_model(model, weights, device)
    if weights is not None:
        raise ModelError(
            f"model {model.path} holds its own weights; leave out {weights.path}, or give the model's .py file"
        )
    if suffix == ".pt2":
        return _exported_program(model.verified(), device)
    if suffix in (".pt", ".jit", ".ts"):
        return _torchscript(model.verified(), device)
    raise ModelError(f"model {model.path} is not a torch model by its name; expected .py, .pt2, .pt, .jit or .ts")


def _python_model(model: ModelFile, weights: ModelFile | None, device: torch.device) -> TorchModel:
    module = run_model_file(model)
    path = weights.verified() if weights else None
    if hasattr(module, "load_model"):
        try:
            net = module.load_model(str(path) if path else None)
        except Exception as error:
            raise ModelError(f"load_model of {model.path} failed on {path}: {error!r}") from error
    elif isinstance(getattr(module, "InstantiatedModel", None), torch.nn.Module):
        net = module.InstantiatedModel
        if path is not None:
            fill(net, read_weights(path), model.path, path)
    else:
        raise ModelError(
            f"model file {model.path} defines neither load_model(weight_path) nor InstantiatedModel, a torch.nn.Module;"
            " for a file with PatchInferencer, pass framework='universal'"
        )
    if isinstance(net, torch.nn.Module):
        net = net.to(device).eval()
    elif not callable(net):
        raise ModelError(f"load_model of {model.path} returned {type(net).__name__}; expected a network to call")
    return TorchModel(net, getattr(module, "pre_process", None), getattr(module, "post_process", None))


def _torchscript(path: Path, device: torch.device) -> TorchModel:
    if zipfile.is_zipfile(path) and not is_torchscript(path):
        raise ModelError(
            f"model {path} is not a TorchScript archive but what torch.save wrote: give weights as convnet_weight_path"
            " (-w) and the model's .py file as convnet_model (-m); write a whole model with torch.export.save (.pt2)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            net = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(
            f"model {path} is not a TorchScript archive ({first_line(error)}); if it holds weights only,"
            " give it as convnet_weight_path (-w) and the model's .py file as convnet_model (-m)"
        ) from error
    return TorchModel(net.eval())


def _exported_program(path: Path, device: torch.device) -> TorchModel:
    try:
        _refuse_pickles(path)
        program = torch.export.load(path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, str(device))
        first = program.graph_signature.user_inputs[0]
        shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == first)
        net = program.module()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"model {path} is not an exported program ({first_line(error)}); write it with torch.export.save"
        ) from error
    return TorchModel(net, batch=shape[0] if isinstance(shape[0], int) else None)


def _refuse_pickles(path: Path) -> None:
    """Refuse what `torch.export.load` would unpickle without restriction."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".pt"):
                content = archive.read(name)
                try:
                    torch.load(io.BytesIO(content), weights_only=True) if content else None
                except Exception as error:
                    raise ModelError(f"model {path} holds pickled objects in {name}; they are not run") from error
            elif name.endswith("_config.json"):
                payloads = json.loads(archive.read(name))["config"]
                pickled = [key for key, value in payloads.items() if value["use_pickle"]]
                if pickled:
                    raise ModelError(f"model {path} holds pickled objects {pickled[:4]}; they are not run")
