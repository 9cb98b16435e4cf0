"""What a network answered, held against what was declared of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from daskflow.errors import ModelError
from daskflow.inference.network import Network
from daskflow.inference.patches import VOXEL_FOR_VOXEL


def chosen(answer: Any, network: Network) -> Any:
    """Return the one of several answers that `net_output` names; an array that stands alone is returned as it is.

    Raises:
        ModelError: there are several and none is chosen, or none of that index or name.
    """
    several = _several(answer)
    if several is None:
        if network.net_output is not None:
            raise ModelError(
                f"network {network.name} answered one {type(answer).__name__}; leave net_output"
                f" {network.net_output!r} out"
            )
        return answer
    if network.net_output not in several:
        choices = ", ".join(f"{name!r} ({_described(value)})" for name, value in several.items())
        count = len({id(value) for value in several.values()})
        wanted = "" if network.net_output is None else f", none of them {network.net_output!r}"
        raise ModelError(
            f"network {network.name} answered {type(answer).__name__} of {count}{wanted}: choose by net_output"
            f" (--net-output) one of {choices}; a Python model file may define post_process to make one tensor of them"
        )
    return several[network.net_output]


def check_dtype(dtype: str, network: Network) -> None:
    """Refuse numbers that a volume does not hold, and those that cannot be blended.

    Args:
        dtype: name of the answer's type, e.g. ``"float32"``.
        network: what answered.

    Raises:
        ModelError: complex numbers or no numbers; integers or bool that are to be blended.
    """
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
    """Refuse an answer of another shape than was declared.

    Args:
        shape: of the answer.
        batch: patches it answers for.
        network: what answered.
        croppable: an answer for the whole input patch is cropped to the output patch.

    Raises:
        ModelError: naming what to declare, or that the network has another resolution than its input.
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
