"""How one layer looks: what stands in brackets after its name, e.g. ``em,affinities[color=red,opacity=0.5]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from daskflow.errors import MissingDependencyError, ParameterError

Shown = Literal["image", "segmentation", "annotation"]

_LAYER = re.compile(r"([^,\[\]]+)(?:\[([^\[\]]*)\])?(?:,|$)")
_ONLY_OF: dict[str, Shown] = {"range": "image", "size": "annotation"}


@dataclass(frozen=True)
class Look:
    """How a layer looks, where it is said; see `neuroglancer` for what is chosen otherwise.

    Attributes:
        color: a name of CSS or #rrggbb: of the first channel of an image, of all labels, or of points and lines.
        opacity: from 0 to 1.
        range: the values of an image that are black and white.
        size: of points, in pixels.
        visible: whether the layer is shown at first.

    Raises:
        ParameterError: an unknown color, or numbers out of range.
    """

    color: str | None = None
    opacity: float | None = None
    range: tuple[float, float] | None = None
    size: float | None = None
    visible: bool = True

    def __post_init__(self) -> None:
        if self.color is not None:
            object.__setattr__(self, "color", _hexadecimal(self.color))
        if self.opacity is not None and not 0 <= self.opacity <= 1:
            raise ParameterError(f"opacity {self.opacity:g} is not in 0..1")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ParameterError(f"range {self.range[0]:g}:{self.range[1]:g}: the first value must be the smaller one")
        if self.size is not None and not self.size > 0:
            raise ParameterError(f"size {self.size:g} must be more than 0 pixels")

    def check(self, name: str, shown: Shown) -> None:
        """Raise where something is said that a kind of layer does not have."""
        for option, kind in _ONLY_OF.items():
            if getattr(self, option) is not None and kind != shown:
                article = "an" if kind[0] in "ai" else "a"
                raise ParameterError(f"{name}[{option}=...]: only {article} {kind} has a {option}, this is {shown}")


def read_layers(text: str) -> dict[str, Look]:
    """Return the layers that a list names, with commas, and how each looks.

    Raises:
        ParameterError: brackets that are not closed, or options and values that are not known.
    """
    found: dict[str, Look] = {}
    at = 0
    while at < len(text):
        match = _LAYER.match(text, at)
        if match is None:
            raise ParameterError(f"{text!r} is not a list of layers; give names like em,affs[color=red,opacity=0.5]")
        found[match[1]] = _look(match[1], match[2] or "")
        at = match.end()
    return found


def _look(name: str, words: str) -> Look:
    said: dict[str, Any] = {}
    for word in filter(None, words.split(",")):
        option, _, value = (part.strip() for part in word.partition("="))
        reader = _READERS.get(option)
        if reader is None:
            raise ParameterError(f"{name}[{word}]: unknown option {option!r}; known options: {', '.join(_READERS)}")
        try:
            said[option] = reader(value)
        except (ValueError, KeyError) as error:
            example = _EXAMPLES[option]
            raise ParameterError(
                f"{name}[{word}]: {value!r} is not understood; give e.g. {option}={example}"
            ) from error
    return Look(**said)


def _range(value: str) -> tuple[float, float]:
    low, high = map(float, value.split(":"))
    return low, high


_READERS: Mapping[str, Any] = {
    "color": str,
    "opacity": float,
    "range": _range,
    "size": float,
    "visible": {"yes": True, "true": True, "no": False, "false": False}.__getitem__,
}
_EXAMPLES = {"color": "red", "opacity": "0.5", "range": "0:255", "size": "8", "visible": "no"}


def _hexadecimal(color: str) -> str:
    try:
        from PIL import ImageColor
    except ImportError as error:
        raise MissingDependencyError.of("pillow", "view") from error
    try:
        red, green, blue, *_ = ImageColor.getrgb(color)
    except ValueError as error:
        raise ParameterError(f"unknown color {color!r}; give a name such as red, or #rrggbb") from error
    return f"#{red:02x}{green:02x}{blue:02x}"
