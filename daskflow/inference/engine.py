"""What runs a network and adds its patches up, with the engines that need no framework of their own."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from daskflow.errors import ModelError
from daskflow.geometry import Zyx
from daskflow.inference.bumps import Shares
from daskflow.inference.patches import VOXEL_FOR_VOXEL, Patch
from daskflow.inference.python_file import run_model_file

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
        """Add the share of a patch that falls into the box: at `at`, the `part` of its whole `output`, czyx."""


class Engine(ABC):
    """A loaded network, whose outputs are ndarrays unless it says otherwise.

    Attributes:
        name: names it to people.
        batch_size: patches per call; an engine that runs out of memory lowers it.
        guard: held by whoever answers for a box, where a device has room for one box at a time.
    """

    guard: AbstractContextManager[Any] = nullcontext()

    def __init__(self, network: Network) -> None:
        self.name = network.name
        self.batch_size = network.batch_size
        self._network = network
        self._host_shares = Shares(network.output_patch, network.bump, np.asarray)

    @abstractmethod
    def __call__(self, patches: Array) -> Any:
        """Return outputs (batch, channels, and an output patch zyx) of patches (batch, channels, and an input patch).

        They are float32 on the engine's device or, where they are not blended, arrays of the network's own type on the
        host; later calls leave them alone. Threads take turns, for a network may keep tensors of a pass on itself.
        Patches are float32 on the host, overwritten after the outputs were added up.

        Raises:
            ModelError: the network failed, or its output is not what was declared.
        """

    def accumulator(self, channels: int, shape: Zyx) -> Accumulator:
        """Return an empty sum for a box of `shape` voxels on the engine's device."""
        return HostAccumulator(channels, shape, self._host_shares)

    def release(self) -> None:  # noqa: B027 (most keep nothing)
        """Give back what was only kept to make the next call faster."""


class Mosaic:
    """Outputs side by side, each voxel of a box of `shape` (zyx) from one patch, in the type that was declared."""

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


class IdentityEngine(Engine):
    """No network: answers with the voxels of the output patch, of the first input, repeated as channels; for tests."""

    def __init__(self, network: Network) -> None:
        first, *_ = network.inputs or (network.input_channels,)
        if first not in (1, network.channels):
            raise ModelError(
                f"identity cannot answer {network.channels} channels from {first};"
                " give as many output channels as the volume has"
            )
        super().__init__(network)

    def __call__(self, patches: Array) -> Any:
        middle = self._network.split(patches)[0][(slice(None), slice(None), *self._network.middle)]
        return np.broadcast_to(middle, (len(middle), self._network.channels, *middle.shape[2:]))


class CallingEngine(Engine):
    """Calls an object with ndarrays, one for each input, from one thread at a time."""

    _inferencer: Callable[..., Any]

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._turn = threading.Lock()

    def __call__(self, patches: Array) -> Any:
        with self._turn:
            try:
                answer = self._inferencer(*self._network.split(patches))
            except Exception as error:
                raise failure_of(self._network, patches, error) from error
            outputs = np.asarray(chosen(answer, self._network))
            check_dtype(outputs.dtype.name, self._network)
            check_shape(outputs.shape, len(patches), self._network, croppable=False)
            # a copy: it may answer in the same buffer each time
            return np.array(outputs, np.float32 if self._network.blend == "bump" else None)


class UniversalEngine(CallingEngine):
    """Runs chunkflow's ``PatchInferencer(weight_path, output_patch_mask)`` of a model file, which wraps any framework.

    Such a file crops its outputs to the output patch and multiplies them by the mask; the mask it gets is all ones,
    since patches are weighted afterwards.
    """

    def __init__(self, network: Network) -> None:
        assert network.model is not None
        kind = getattr(run_model_file(network.model), "PatchInferencer", None)
        if kind is None:
            raise ModelError(
                f"model file {network.name} defines no class PatchInferencer(weight_path, output_patch_mask);"
                " for a file with InstantiatedModel or load_model, pass framework='pytorch'"
            )
        super().__init__(network)
        self._inferencer = _construct(kind, network)


class PrebuiltEngine(CallingEngine):
    """Calls an object of this process, as chunkflow's class takes one; workers get its pickled copy."""

    def __init__(self, network: Network) -> None:
        assert network.prebuilt is not None
        mask = getattr(network.prebuilt, "output_patch_mask_numpy", None)
        if mask is not None and not (np.asarray(mask) == 1).all():
            raise ModelError(
                f"{network.name} multiplies its answers by a mask, and they are weighted afterwards: build it with an"
                " output_patch_mask of ones"
            )
        super().__init__(network)
        self._inferencer = network.prebuilt


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


def failure_of(network: Network, patches: Array, error: Exception) -> ModelError:
    """Return what to raise where a network raised on some patches."""
    return ModelError(
        f"network {network.name} failed on patches of shape {patches.shape} (batch, channel, zyx): {error!r}"
    )


def chosen(answer: Any, network: Network) -> Any:
    """Return the one of several answers that `net_output` names; an array that stands alone is returned as it is."""
    several = _several(answer)
    if several is None:
        if network.net_output is not None:
            raise ModelError(
                f"network {network.name} answered one {type(answer).__name__}; leave net_output"
                f" {network.net_output!r} out"
            )
        return answer
    wanted = [] if network.net_output is None else network.net_output.split(",")
    if not wanted or not all(name in several for name in wanted):
        choices = ", ".join(f"{name!r} ({_described(value)})" for name, value in several.items())
        count = len({id(value) for value in several.values()})
        absent = ", ".join(repr(name) for name in wanted if name not in several)
        none = f", none of them {absent}" if absent else ""
        raise ModelError(
            f"network {network.name} answered {type(answer).__name__} of {count}{none}: choose by net_output"
            f" (--net-output) one of {choices}; a Python model file may define post_process to make one tensor of them"
        )
    return several[wanted[0]] if len(wanted) == 1 else _stacked({name: several[name] for name in wanted}, network)


def _stacked(answers: dict[str, Any], network: Network) -> Any:
    """Return several answers with their channels one after the other."""
    shapes = [tuple(getattr(answer, "shape", ())) for answer in answers.values()]
    alike = all(len(shape) == 5 for shape in shapes) and len({(shape[0], *shape[2:]) for shape in shapes}) == 1
    if not alike or tuple(shape[1] for shape in shapes) != network.outputs:
        told = ", ".join(f"{name!r} ({_described(value)})" for name, value in answers.items())
        raise ModelError(
            f"network {network.name} answered {told}; expected (batch, channel, z, y, x) that differ in their channels"
            f" alone, of which num_output_channels (-c) says {network.outputs}"
        )
    array_module = sys.modules[type(answers[next(iter(answers))]).__module__.partition(".")[0]]
    return array_module.concatenate(tuple(answers.values()), 1)


def filled_up(patches: Array, size: int) -> Iterator[tuple[Array, int]]:
    """Yield patches in batches of one size, the last filled up with zeros, and how many of each are patches."""
    for start in range(0, len(patches), size):
        batch = np.zeros((size, *patches.shape[1:]), np.float32)
        used = patches[start : start + size]
        batch[: len(used)] = used
        yield batch, len(used)


def threads_of_worker() -> int | None:
    """Return how many threads the Dask worker has that runs this, None if none does."""
    distributed = sys.modules.get("distributed")
    try:
        return int(distributed.get_worker().state.nthreads) if distributed else None
    except ValueError:
        return None


def check_dtype(dtype: str, network: Network) -> None:
    """Refuse types, by their names, that a volume does not hold, and those that cannot be blended."""
    kind = dtype.rstrip("0123456789")
    if kind == "complex":
        raise ModelError(
            f"network {network.name} answered complex numbers ({dtype}), which volumes do not hold;"
            " answer the absolute value, or real and imaginary parts as two channels"
        )
    if kind not in ("float", "bfloat", "int", "uint", "bool"):
        raise ModelError(f"network {network.name} answered {dtype}; expected numbers")
    if network.blend == "bump" and kind in ("int", "uint", "bool"):
        raise ModelError(
            f"network {network.name} answered {dtype}, and the mean of two classes is another class: answer"
            " probabilities (floats), or pass blend='none' (--blend none), where each voxel takes the answer of the"
            " patch in which it lies deepest"
        )


def check_shape(shape: tuple[int, ...], batch: int, network: Network, *, croppable: bool) -> None:
    """Refuse an answer for a batch of patches of another shape than was declared, naming what to declare.

    Where it is `croppable`, an answer for the whole input patch is cropped to the output patch.
    """
    expected = (batch, network.channels, *network.output_patch)
    whole = (batch, network.channels, *network.input_patch)
    if shape == expected or (croppable and shape == whole):
        return
    wanted = f"{expected}, or {whole} to be cropped" if croppable and whole != expected else f"{expected}"
    text = f"network {network.name} answered shape {shape} (batch, channel, zyx); expected {wanted}"
    if len(shape) != 5 or shape[0] != batch:
        raise ModelError(f"{text}: it must keep the axes (batch, channel, z, y, x)")
    if shape[1] != network.channels:
        text += f": set num_output_channels to {shape[1]} (-c {shape[1]})"
    if shape[2:] == network.output_patch:
        raise ModelError(text)
    if shape[2:] == network.input_patch:
        raise ModelError(f"{text}{'' if croppable else '; crop it to the middle of what it sees'}")
    if all(answered <= seen for answered, seen in zip(shape[2:], network.input_patch, strict=True)):
        text += f"; if it answers for the middle of what it sees, set output_patch_size to {shape[2:]}"
    raise ModelError(f"{text}. {VOXEL_FOR_VOXEL}")


def _several(answer: Any) -> dict[str, Any] | None:
    """Return several answers by index or name, those within others by both, e.g. ``aux.1``; None for one alone."""
    if isinstance(answer, Mapping):
        found = {str(name): value for name, value in answer.items()}
    elif isinstance(answer, tuple | list):
        named = dict(zip(getattr(answer, "_fields", ()), answer, strict=False))
        found = {str(index): value for index, value in enumerate(answer)} | named
    elif dataclasses.is_dataclass(answer):
        found = {field.name: getattr(answer, field.name) for field in dataclasses.fields(answer)}
    else:
        return None
    flat: dict[str, Any] = {}
    for name, value in found.items():
        inner = _several(value)
        flat |= {name: value} if inner is None else {f"{name}.{key}": one for key, one in inner.items()}
    return flat


def _described(value: Any) -> str:
    shape = "x".join(map(str, getattr(value, "shape", ())))
    return f"{type(value).__name__} {shape}".strip()
