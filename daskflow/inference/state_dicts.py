"""Weights as checkpoints hold them, and the state dict among them that fits a network.

A checkpoint is taken for its tensors by dotted name, whether a part of the name is a key of a dict around the others,
a place in a list, or a prefix within their keys:

    {"epoch": 3, "state_dict": {"model.conv.weight": ...}}      state_dict.model.conv.weight

A state dict is all that lies below one prefix. The one that fits has the names and shapes of the network, no more and
no less; what compiling and data parallelism put between (`_orig_mod`, `module`) counts on neither side. The network
itself comes before its running averages (`ema`, `model_ema`, `swa_model`).
"""

from __future__ import annotations

import argparse
import logging
import pathlib
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from daskflow.errors import MissingDependencyError, ModelError

logger = logging.getLogger(__name__)

State = dict[str, torch.Tensor]

_WRAPPERS = {"_orig_mod", "module", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_HOLDERS = {"model", "net", "network"}
_AVERAGES = {"ema", "swa", "avg", "average", "averaged"}
_UNUSED = "num_batches_tracked"  # counts steps of training; old checkpoints lack it


def read_weights(path: Path) -> State:
    """Return the tensors of a weight file by their dotted names, those of nested dicts included."""
    if is_torchscript(path):
        raise ModelError(f"weights {path} are a TorchScript archive, which is a model: give it as convnet_model (-m)")
    try:
        stored = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)
    except (MissingDependencyError, ModelError):
        raise
    except Exception as error:
        raise ModelError(
            f"weights {path} do not load ({first_line(error)}); expected .safetensors or a state dict of tensors that"
            " torch.save wrote; other pickled objects are not run"
        ) from error
    tensors = dict(_tensors(stored)) if isinstance(stored, Mapping) else {}
    if not tensors:
        raise ModelError(f"weights {path} hold no state dict but {type(stored).__name__}; save model.state_dict()")
    return tensors


def fill(net: torch.nn.Module, tensors: State, model: str, weights: Path) -> None:
    """Load the state dict that fits into a network, the one that is not a running average where several do."""
    expected = net.state_dict()
    below = _by_prefix(tensors)
    for names in _names(expected):
        wanted = _counted(names)
        fitting = {prefix: state for prefix, state in below.items() if _counted(state) == wanted}
        shaped = {
            prefix: state
            for prefix, state in fitting.items()
            if all(state[name].shape == expected[names[name]].shape for name in wanted)
        }
        chosen = _distinct(shaped)
        averages = {prefix for prefix in chosen if _AVERAGES & set(re.split(r"[._-]", prefix.lower()))}
        trained = {prefix: state for prefix, state in chosen.items() if prefix not in averages}
        if len(chosen) > 1 and len(trained) == 1:
            (used,), left = trained, ", ".join(repr(prefix) for prefix in chosen if prefix not in trained)
            logger.warning("weights %s: %r is used, not the running average under %s", weights, used, left)
            chosen = trained
        if len(chosen) > 1:
            raise ModelError(
                f"weights {weights} hold several state dicts that fit the model {model} and differ, under"
                f" {', '.join(map(repr, chosen))}: save the one you want alone, with torch.save or safetensors"
            )
        if fitting:
            state = next(iter((chosen or fitting).values()))
            _load(net, {names[name]: tensor for name, tensor in state.items() if name in names}, model, weights)
            return
    names = next(_names(expected))
    closest = max(below.values(), key=lambda state: len(state.keys() & names.keys()))
    _load(net, {names.get(name, name): tensor for name, tensor in closest.items()}, model, weights)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, not what `torch.save` or `torch.export` write."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def first_line(error: BaseException) -> str:
    """Return the type and the first sentence of what was raised, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    sentence = re.split(r"[.]?\s*\n|[.] ", text)[0]
    return f"{type(error).__name__}: {sentence}"


def _tensors(stored: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, torch.Tensor]]:
    for key, value in stored.items():
        value = dict(enumerate(value)) if isinstance(value, list | tuple) else value
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            yield f"{prefix}{key}", torch.from_numpy(value)


def _by_prefix(tensors: State) -> dict[str, State]:
    """Return all that lies below each prefix, by plain names; the shortest prefixes first."""
    below: dict[str, State] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        for cut in range(len(parts)):
            below.setdefault(".".join(parts[:cut]), {})[_plain(".".join(parts[cut:]))] = tensor
    return dict(sorted(below.items(), key=lambda one: one[0].count(".") + bool(one[0])))


def _names(expected: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield the names of a network by those they may have in a state dict: plain, then without what holds them all."""
    names = {_plain(name): name for name in expected}
    if len(names) < len(set(expected)):
        names = {name: name for name in expected}
    yield names
    while len(holders := {name.partition(".")[0] for name in names}) == 1 and holders <= _HOLDERS:
        names = {name.partition(".")[2]: whole for name, whole in names.items()}
        yield names


def _plain(name: str) -> str:
    *path, last = name.split(".")
    return ".".join([*(part for part in path if part not in _WRAPPERS), last])


def _counted(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.rpartition(".")[2] != _UNUSED}


def _distinct(states: dict[str, State]) -> dict[str, State]:
    """Return the states that differ from those before them."""
    kept: dict[str, State] = {}
    for prefix, state in states.items():
        if not any(all(torch.equal(state[name], other[name]) for name in state) for other in kept.values()):
            kept[prefix] = state
    return kept


def _load(net: torch.nn.Module, state: State, model: str, weights: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        expected = net.state_dict()
        missing, surplus = sorted(_counted(expected.keys() - state.keys())), sorted(state.keys() - expected.keys())
        sizes = [
            f"size mismatch for {name}: {tuple(state[name].shape)}, in the model {tuple(expected[name].shape)}"
            for name in expected.keys() & state.keys()
            if state[name].shape != expected[name].shape
        ]
        keys = f"missing {missing[:4]}, not in the model {surplus[:4]}" if missing or surplus else ""
        text = "; ".join([*filter(None, [keys]), *sorted(sizes)[:4]]) or first_line(error)
        raise ModelError(f"weights {weights} do not fit the model {model}: {text}") from error


def _read_safetensors(path: Path) -> State:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError.of("safetensors", "torch") from error
    tensors: State = load_file(path)
    return tensors


def _unpickled(path: Path) -> Any:
    with torch.serialization.safe_globals(_harmless()):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            refused = _refused(path, error)
            if not refused:
                raise
    raise ModelError(
        f"weights {path} hold pickled objects that are not run: {', '.join(refused[:4])}"
        f"{f' and {len(refused) - 4} more' if len(refused) > 4 else ''}. If you trust the file, save its tensors again"
        f" where these can be imported: saved = torch.load({path.name!r}, weights_only=False), then"
        " torch.save(saved['state_dict'], 'weights.pt'), or saved.state_dict() if it is a whole model"
    )


def _refused(path: Path, error: Exception) -> list[str]:
    """Return the names of the classes and functions that loading refused; none when it failed otherwise."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001 (a damaged file, or the format before 2020)
        found = []
    return sorted(found) or re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]


def _harmless() -> list[Any]:
    """Return the types that checkpoints hold beside tensors and that do nothing when they are made."""
    scalar, array = np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]
    numpy = [np.dtype, np.ndarray, *{type(np.dtype(code)) for code in "?bhilqBHILQefdSU"}]
    named = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((scalar, "scalar"), (array, "_reconstruct"))
    ]
    paths = [(pathlib.PurePath, f"pathlib.{name}") for name in ("PosixPath", "WindowsPath")]
    return [*numpy, *named, *paths, argparse.Namespace]
