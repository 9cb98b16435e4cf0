"""Which stored axis is which: from the names that a file or its reader gives them to a view zyx or czyx."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.errors import GeometryError, ParameterError
from daskflow.stores.base import Opening

SPATIAL = ("z", "y", "x")
_KINDS = {
    "z": ("z", "depth", "slice", "slices", "section", "sections", "plane", "planes"),
    "y": ("y", "row", "rows", "height"),
    "x": ("x", "col", "cols", "column", "columns", "width"),
    "c": ("c", "channel", "channels", "ch", "s", "sample", "samples", "color", "colour", "rgb", "band"),
    "t": ("t", "time", "timepoint", "timepoints", "frame", "frames"),
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names}
_UNNAMED = re.compile(r"(dim_?\d+|phony_dim_\d+|axis_?\d+|q|i|none|\?|)")


@dataclass(frozen=True)
class Axes:
    """Which stored axis is which.

    Attributes:
        order: the stored position of each axis of zyx or czyx; -1 for the z of an image without one: one section.
        fixed: stored position and index of every axis that is left out: one of length 1, or a chosen time point.
    """

    order: tuple[int, ...]
    fixed: tuple[tuple[int, int], ...] = ()

    @property
    def spatial(self) -> tuple[int, ...]:
        """Stored positions of z, y and x; -1 where there is no z."""
        return self.order[-3:]

    @property
    def channel(self) -> int | None:
        """Stored position of the channel axis, None without one."""
        return self.order[0] if len(self.order) == 4 else None

    def zyx(self, values: Sequence[Any], otherwise: float = 1) -> tuple[Any, Any, Any]:
        """Pick the numbers of z, y and x from one per stored axis; `otherwise` of an axis that is not stored."""
        z, y, x = (values[i] if i >= 0 else otherwise for i in self.spatial)
        return z, y, x

    def pick(self, values: Any) -> list[Any]:
        """Return the entries of z, y and x from one per stored axis or per spatial axis; [] of others."""
        found = _listed(values)
        if len(found) == len(self.order) + len(self.fixed) and -1 not in self.order:
            return [found[i] for i in self.spatial]
        if len(found) == len(SPATIAL):
            return [found[sorted(self.spatial).index(i)] for i in self.spatial]
        return []

    def with_zyx(self, values: Any, zyx: Sequence[Any]) -> list[Any]:
        """Return a list as `pick` reads it, with other entries for z, y and x."""
        count = len(self.order) + len(self.fixed)
        if isinstance(values, list | tuple) and len(values) == count and -1 not in self.order:
            changed = list(values)
            for index, value in zip(self.spatial, zyx, strict=True):
                changed[index] = value
            return changed
        return [zyx[self.spatial.index(index)] for index in sorted(self.spatial)]

    def view(self, stored: Any, slices: Sequence[slice] = (slice(None),) * 3) -> Any:
        """Return the part of a stored array (of numpy, h5py or tensorstore) at slices zyx, as zyx or czyx."""
        order = [position for position in self.order if position >= 0]
        index: list[Any] = [slice(None)] * (len(order) + len(self.fixed))
        for position, at in (*self.fixed, *zip(self.spatial, slices, strict=True)):
            if position >= 0:
                index[position] = at
        kept = sorted(order)
        part = stored[tuple(index)].transpose([kept.index(position) for position in order])
        return part if len(order) == len(self.order) else part[..., None, :, :]


def find_axes(
    shape: Sequence[int], names: Sequence[str], url: str, opening: Opening, *, keep_channel: bool = False
) -> Axes:
    """Return which axis is which: as `opening` says, else by the `names` that the source gives them.

    Three axes that nobody names are zyx; other numbers of them are refused. What has y and x and no z is one section.
    Other axes of length 1 than z, y and x are left out, and so is time, of which `opening` chooses a point.
    With `keep_channel` a channel axis of length 1 is kept, because the source is known to mean it.
    """
    kinds = _stated_kinds(opening.axes, shape, url) or _kinds_of(names, shape, url)
    if not kinds:
        kinds = _assumed(shape, url)
    at = {kind: i for i, kind in enumerate(kinds) if kind}
    single = [i for i, n in enumerate(shape) if n == 1 and (not kinds[i] or kinds[i] in ("t", "c"))]
    single = [i for i in single if not (keep_channel and kinds[i] == "c")]
    shown = f"{url} has axes {_shown(kinds, names)} of shape {tuple(shape)}"
    unknown = [i for i, kind in enumerate(kinds) if not kind and i not in single]
    if unknown or "y" not in at or "x" not in at:
        raise GeometryError(f"{shown}; a volume has z, y, x, and at most c and t; {_hint(kinds)}")
    fixed = dict.fromkeys(single, 0)
    if "t" in at:
        fixed[at["t"]] = _time_point(shape[at["t"]], opening.time, shown)
    elif opening.time is not None:
        raise ParameterError(f"{shown} and no time axis; drop --time {opening.time}")
    order = tuple(at.get(kind, -1) for kind in ("c", *SPATIAL) if kind == "z" or (kind in at and at[kind] not in fixed))
    return Axes(order, tuple(sorted(fixed.items())))


def axis_names(value: Any) -> tuple[str, ...]:
    """Return the names of axes that a source states: a list, ``"z y x"``, ``"z-y"``, ``"['z', 'y']"`` or ``"zyx"``."""
    if not isinstance(value, str | bytes) and getattr(value, "ndim", 1) > 0:
        return tuple(as_text(name) for name in _listed(value))
    text = as_text(value)
    words = [word for word in re.split(r"[\s,;'\"-]+", text.strip("()[]")) if word]
    return tuple(words) if len(words) > 1 else tuple(words[0]) if words else ()


def as_text(value: Any) -> str:
    """Return a word that a file states, as text: from text, from bytes or from an array of one; "" for none."""
    value = value.item() if getattr(value, "size", 0) == 1 and hasattr(value, "item") else value
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = value.decode("latin-1")
    return "" if value is None else str(value).strip().strip("\0")


def name_of(axis: Mapping[str, Any]) -> str:
    """Return the name of an axis that an object describes; one of type channel or time may have any name."""
    name = "" if axis.get("name") is None else str(axis["name"])
    kind = {"channel": "c", "time": "t"}.get(str(axis.get("type")), "")
    return kind if kind and not _kind(name) else name


def _listed(values: Any) -> list[Any]:
    if values is None or isinstance(values, str | bytes | dict) or not isinstance(values, Iterable):
        return []
    if getattr(values, "ndim", 1) == 0:
        return []
    return list(values.ravel() if hasattr(values, "ravel") else values)


def _hint(kinds: Sequence[str]) -> str:
    """Return the option that names axes, for example as those that are known and others in the usual order."""
    example = {2: "yx", 4: "zyxc", 5: "tzyxc"}.get(len(kinds), "zyx")
    if any(kinds):
        others = [kind for kind in "zyxct" if kind not in kinds]
        if "z" in others and list(kinds).count("") < sum(kind in SPATIAL for kind in others):
            others.remove("z")
        example = "".join(kind or others.pop(0) for kind in kinds if kind or others)
    return f"say which axis is which, in stored order, e.g. --axes {example}"


def _shown(kinds: Sequence[str], names: Sequence[str]) -> str:
    return ", ".join(kind or (names[i] if i < len(names) and names[i] else "?") for i, kind in enumerate(kinds))


def _stated_kinds(stated: str | None, shape: Sequence[int], url: str) -> list[str]:
    """Return the kinds of axes that the caller states, [] when nothing is stated."""
    if stated is None:
        return []
    names = axis_names(stated)
    kinds = [_kind(name) for name in names]
    if not all(kinds) or len(set(kinds)) != len(kinds) or not {"y", "x"} <= set(kinds):
        raise ParameterError(f"axes {stated!r} must name y, x, and at most z, c and t, each once, e.g. 'zyxc'")
    if len(kinds) != len(shape):
        raise ParameterError(
            f"axes {stated!r} name {len(kinds)} axes, and {url} has {len(shape)}: {' x '.join(map(str, shape))}"
        )
    return kinds


def _kinds_of(names: Sequence[str], shape: Sequence[int], url: str) -> list[str]:
    """Return the kinds of axes by their names, "" for an unknown one; [] when no axis has a name."""
    if all(_UNNAMED.fullmatch(name.lower()) for name in names):
        return []
    kinds = [_kind(name) for name in names]
    kinds = ["" if n == 1 and kinds.count(kind) > 1 else kind for kind, n in zip(kinds, shape, strict=False)]
    known = [kind for kind in kinds if kind]
    if len(names) != len(shape) or len(set(known)) != len(known):
        raise GeometryError(
            f"{url} names its axes {', '.join(names)}, and has shape {tuple(shape)}; a volume has zyx or czyx; "
            f"{_hint([''] * len(shape))}"
        )
    if sorted(kinds) == ["", "x", "y"] and _UNNAMED.fullmatch(names[kinds.index("")].lower()):
        kinds[kinds.index("")] = "z"
    return kinds


def _kind(name: str) -> str:
    """Return what a name stands for; daisy marks what is not an axis of space by ^, mostly channels of some name."""
    bare = name.strip().lower()
    return _KIND_OF.get(bare.removesuffix("^"), "c" if bare.endswith("^") else "")


def _assumed(shape: Sequence[int], url: str) -> list[str]:
    """Return the kinds of three axes that nobody names.

    More are refused even where some have length 1: (1, 512, 512, 3) may be channels of one section.
    """
    if len(shape) == len(SPATIAL):
        return list(SPATIAL)
    if len(shape) < 2:
        raise GeometryError(f"{url} has {len(shape)} axes {tuple(shape)}; a volume has zyx or czyx")
    raise GeometryError(
        f"{url} has {len(shape)} axes {tuple(shape)} and does not say which they are; {_hint([''] * len(shape))}"
    )


def _time_point(points: int, stated: int | None, shown: str) -> int:
    if stated is None:
        if points == 1:
            return 0
        raise GeometryError(
            f"{shown}: {points} time points, and a volume has zyx or czyx; choose one, e.g. --time 0, "
            "or say with --axes that they are sections, e.g. --axes zyx"
        )
    if not 0 <= stated < points:
        raise ParameterError(f"{shown}, and no time point {stated}; choose 0 to {points - 1}")
    return stated
