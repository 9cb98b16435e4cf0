"""What torch networks are stored in: Python model files with weights, TorchScript archives, exported programs.

Weights are tensors and nothing else: pickled code in a weight file, or in an exported program, is refused and not run.
A model itself is a program, whatever its format; open those you trust.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from daskflow.errors import ModelError
from daskflow.inference.engines.python_file import run_model_file
from daskflow.inference.engines.state_dicts import fill, first_line, is_torchscript, read_weights
from daskflow.inference.network import ModelFile


@dataclass(frozen=True)
class TorchModel:
    """A network ready to be called.

    Attributes:
        net: maps what `pre_process` returns to what `post_process` takes.
        pre_process: makes the network's input of a float32 ndarray (batch, channel, zyx); None for its tensor.
        post_process: makes a tensor (batch, channel, zyx) of the network's output; None where it is one already.
        batch: the only batch size it accepts; None for any.
    """

    net: Callable[..., Any]
    pre_process: Callable[..., Any] | None = None
    post_process: Callable[..., Any] | None = None
    batch: int | None = None


def load_model(model: ModelFile, weights: ModelFile | None, device: torch.device) -> TorchModel:
    """Return the network of a model file, in eval mode on `device`.

    Args:
        model: a chunkflow model file (.py), a TorchScript archive (.pt, .jit, .ts) or an exported program (.pt2).
        weights: its weights (.safetensors, or a state dict that torch saved); for .py files only.
        device: where it shall compute.

    Raises:
        ModelError: it does not load.
    """
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
    raise ModelError(f"model {model.path} is no torch model by its name; expected .py, .pt2, .pt, .jit or .ts")


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
            f"model {path} is no TorchScript archive but what torch.save wrote: give weights as convnet_weight_path"
            " (-w) and the model's .py file as convnet_model (-m); write a whole model with torch.export.save (.pt2)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            net = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise ModelError(
            f"model {path} is no TorchScript archive ({first_line(error)}); if it holds weights only,"
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
            f"model {path} is no exported program ({first_line(error)}); write it with torch.export.save"
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
