"""What operators ask of volumes: one box, and a kind: an image, of amounts; labels, which are names; or a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import GeometryError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.volume.node import Array, Crop

if TYPE_CHECKING:
    from daskflow.volume.volume import Volume

Takes = Literal["image", "labels"]


def check_same_box(**volumes: Volume) -> None:
    """Raise unless two volumes, each by what messages call it, cover the same box.

    Raises:
        GeometryError: they do not.
    """
    (name, one), (other_name, other) = volumes.items()
    if one.box != other.box:
        cover = "cover" if name.endswith("s") else "covers"
        raise GeometryError(
            f"the {name} {cover} {one.box}, the {other_name.replace('_', ' ')} {other.box} (z0-z1_y0-y1_x0-x1); crop"
            " them to the same box"
        )


def taken(volume: Volume, takes: Takes, command: str, name: str) -> Volume:
    """Return a volume as an operator takes it, or raise; a negative label raises while it is read.

    An image is anything that does not say it is a segmentation. Labels are integers in one channel that do not say
    they are something else, of which none is negative. The messages have the names of command and parameter.
    """
    shown = name if name != "volume" else "the volume"
    if takes == "labels":
        _check_labels(volume, command, shown)
        return without_negatives(volume)
    if volume.layer_type == "segmentation":
        raise ParameterError(
            f"{command} takes an image, {shown} is a segmentation, whose values are names, not amounts; if that is"
            f" wrong, {_remedy('image')}"
        )
    return volume


def without_negatives(volume: Volume) -> Volume:
    """Return labels of which none is negative, which is checked when they are read."""
    from daskflow.volume.volume import Volume

    if volume.dtype.kind != "i" or isinstance(volume.node, Names):
        return volume
    return Volume(Names(volume.spec, volume.node), block=volume.block, mips=volume.mips)


@dataclass(frozen=True, eq=False)
class Names(Crop):
    """Its input, of which no value is negative."""

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        (array,) = arrays
        refuse_negatives(array, box)
        return array


def refuse_negatives(array: Array, box: BoundingBox) -> None:
    """Raise when a label in `box` is negative; the message says where."""
    if array.dtype.kind != "i" or not array.size or array.min() >= 0:
        return
    raise ParameterError(
        f"the label {_first(array, array < 0, box)} (zyx) is negative, and labels are names from 0 on; cast them with"
        " astype to uint64, overflow clip to make those 0; or, if they are amounts, state the layer type image"
    )


def inside(mask: Array, box: BoundingBox) -> npt.NDArray[np.bool_]:
    """Return where a mask of one channel, which holds `box`, is not 0 (zyx); raise where it is nan, which says neither.

    Raises:
        ParameterError: it is nan somewhere; the message says where.
    """
    values = mask.reshape(box.shape)
    if values.dtype.kind == "f" and (unknown := np.isnan(values)).any():
        raise ParameterError(
            f"the mask is {_first(values, unknown, box)} (zyx, in its own voxels), which is neither inside nor outside;"
            " save the mask with a threshold first, which makes nan 0"
        )
    return np.asarray(values != 0)


def _first(array: Array, wrong: Array, box: BoundingBox) -> str:
    """Return the first value of an array, which holds `box`, that is wrong, and where that is."""
    first = np.unravel_index(int(wrong.argmax()), array.shape)
    place = tuple(int(a + b) for a, b in zip(box.start, first[-3:], strict=True))
    return f"{array[first]} at {place}"


def _check_labels(volume: Volume, command: str, name: str) -> None:
    if volume.dtype.kind not in "bui":
        raise ParameterError(f"{command} takes labels, {name} holds {volume.dtype}; label or threshold it first")
    if volume.channels not in (None, 1):
        raise ParameterError(f"{command} takes one channel, {name} has {volume.channels} channels; pick one first")
    if volume.layer_type not in (None, "segmentation"):
        raise ParameterError(
            f"{command} takes a segmentation, {name} is an {volume.layer_type.replace('_', ' ')} of {volume.dtype};"
            f" if its values are labels, {_remedy('segmentation')}"
        )


def _remedy(kind: str) -> str:
    return (
        f"open it with layer_type='{kind}' (--layer-type {kind}), or correct a layer with"
        f" daskflow set LAYER --layer-type {kind}"
    )
