"""A function of the user's own: a Python file with a function ``execute`` over chunks."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sys
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx, as_zyx
from daskflow.volume import Flag, Volume, operator
from daskflow.volume.description import Option

_TRIAL = 16
_naming = threading.Lock()


@operator()
def plugin(
    volume: Volume,
    *others: Volume,
    file: Annotated[str, Flag("-f")],
    args: Annotated[str | None, Flag("-a")] = None,
    depth: int = 0,
) -> Volume:
    """Run the function ``execute`` of a Python file on every block.

    The file is written as for chunkflow: ``execute(chunk, ...)`` gets arrays zyx or czyx that know their
    `voxel_offset`, `voxel_size` and `layer_type`, and returns an array. One that returns less than it was given is
    taken to have cut the same margin off both sides, and the volume becomes smaller by it. The file is executed: use
    only what you trust.

    Args:
        volume: the first argument of the function.
        *others: further arguments, over the same box.
        file: path, or name of a file in the working directory or in ``$CHUNKFLOW_PLUGIN_DIR``.
        args: arguments: ``name=value;name=value`` become keywords, any other text is passed as ``args``.
        depth: voxels of context that the function needs around each block; they are cut off its result.

    Returns:
        A lazy volume of what the function returns.

    Raises:
        ParameterError: there is no such file, it has no ``execute``, or that fails on a small block of ones.
    """
    execute = PluginFile.find(file, parse_arguments(args))
    dtype, channels, margin = execute.trial([volume, *others], depth)
    spec = volume.spec.replace(
        box=volume.box.shrink(margin),
        dtype=dtype,
        channels=channels,
        channel_names=volume.channel_names if channels == volume.channels else (),
        chunk_origin=volume.box.shrink(margin).start,
    )
    reach = as_zyx([m + depth for m in margin])
    return volume.map_boxes(execute, *others, reads=Grown(reach), spec=spec, margin=margin, seen=volume.spec)


class Chunk(np.ndarray[Any, np.dtype[Any]]):
    """An array (zyx or czyx) that knows where it lies, as plugin files expect their arguments.

    Attributes:
        voxel_offset: global coordinates of the first voxel (zyx).
        voxel_size: nm per voxel (zyx).
        layer_type: image, segmentation, affinity_map, probability_map or None.
    """

    voxel_offset: Zyx
    voxel_size: tuple[float, float, float]
    layer_type: str | None

    def __new__(
        cls,
        array: Any,
        voxel_offset: Sequence[int] = (0, 0, 0),
        voxel_size: Sequence[float] = (1, 1, 1),
        layer_type: str | None = None,
    ) -> Chunk:
        """Return a view of `array`."""
        chunk = np.asarray(array).view(cls)
        chunk.voxel_offset = (voxel_offset[0], voxel_offset[1], voxel_offset[2])
        chunk.voxel_size = (voxel_size[0], voxel_size[1], voxel_size[2])
        chunk.layer_type = layer_type
        return chunk

    def __array_finalize__(self, source: Any) -> None:
        self.voxel_offset = getattr(source, "voxel_offset", (0, 0, 0))
        self.voxel_size = getattr(source, "voxel_size", (1.0, 1.0, 1.0))
        self.layer_type = getattr(source, "layer_type", None)

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The plain array."""
        return self.view(np.ndarray)

    @property
    def bbox(self) -> BoundingBox:
        """Where it lies."""
        return BoundingBox.from_size(self.voxel_offset, self.shape[-3:])


@dataclass(frozen=True)
class Grown:
    """The box around a box, `reach` voxels larger on every side (zyx)."""

    reach: Zyx

    def __call__(self, box: BoundingBox) -> BoundingBox:
        return box.grow(self.reach)


@dataclass(frozen=True)
class PluginFile(Option):
    """The function ``execute`` of a file, whose text workers run as it was planned, with its keyword arguments."""

    path: str
    source: str
    arguments: dict[str, Any] = field(hash=False)

    @classmethod
    def find(cls, name: str, arguments: dict[str, Any]) -> PluginFile:
        """Return the plugin of that path or name."""
        file = Path(name if name.endswith(".py") else f"{name}.py")
        folders = [Path(), *(Path(f) for f in [os.environ.get("CHUNKFLOW_PLUGIN_DIR")] if f)]
        places = [folder / file for folder in folders]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise ParameterError(f"there is no plugin {name!r}; looked for {', '.join(map(str, places))}")
        plugin = cls(str(found), found.read_text(), arguments)
        plugin.execute()
        return plugin

    def execute(self) -> Callable[..., Any]:
        """Return the function, from the text that was found."""
        return _execute(self.path, self.source)

    def describe(self) -> dict[str, Any]:
        """Return the file's name and hash, and the arguments."""
        digest = hashlib.sha256(self.source.encode()).hexdigest()
        return {"plugin": Path(self.path).name, "sha256": digest, "arguments": repr(self.arguments)}

    def __call__(
        self,
        *arrays: np.ndarray[Any, Any],
        box: BoundingBox,
        read_box: BoundingBox,
        margin: Zyx,
        seen: VolumeSpec,
    ) -> np.ndarray[Any, Any]:
        """Return what ``execute`` gives for `box`, from arrays that hold `read_box`."""
        chunks = [Chunk(a.copy(), read_box.start, seen.spacing, seen.layer_type) for a in arrays]
        result = np.asarray(self.execute()(*chunks, **self.arguments))
        return result[(..., *box.slices(read_box.shrink(margin)))]

    def trial(self, volumes: Sequence[Volume], depth: int) -> tuple[np.dtype[Any], int | None, Zyx]:
        """Return the dtype, channels and margin cut off each side (zyx) that the plugin makes of a block of ones."""
        z, y, x = (min(_TRIAL + 2 * depth, n) for n in volumes[0].box.shape)
        chunks = [
            Chunk(np.ones((*v.shape[:-3], z, y, x), v.dtype), v.box.start, v.spec.spacing, v.layer_type)
            for v in volumes
        ]
        try:
            result = self.execute()(*chunks, **self.arguments)
        except Exception as error:
            raise ParameterError(f"plugin {self.path} failed on ones of {(z, y, x)} voxels: {error!r}") from error
        result = np.asarray(result)
        cut = [n - m for n, m in zip((z, y, x), result.shape[-3:], strict=False)]
        if result.ndim not in (3, 4) or len(cut) != 3 or any(c < 0 or c % 2 for c in cut):
            raise ParameterError(
                f"plugin {self.path} returned shape {result.shape} for a block of {(z, y, x)} voxels; it must return"
                " zyx or czyx, as large or smaller by the same margin on both sides"
            )
        return result.dtype, result.shape[0] if result.ndim == 4 else None, (cut[0] // 2, cut[1] // 2, cut[2] // 2)


def parse_arguments(text: str | None) -> dict[str, Any]:
    """Return the keyword arguments that ``name=value;name=value`` stands for; other text becomes ``args``."""
    if text is None:
        return {}
    if "=" not in text:
        return {"args": text}
    pairs = (item.partition("=") for item in text.split(";") if item.strip())
    return {name.strip(): _literal(value.strip()) for name, _, value in pairs}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@functools.lru_cache(maxsize=32)
def _execute(path: str, source: str) -> Callable[..., Any]:
    module = types.ModuleType(f"daskflow_plugin_{Path(path).stem}")
    module.__file__ = path
    try:
        _name_chunkflow()
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 (running the user's file is the purpose)
    except Exception as error:
        raise ParameterError(f"plugin {path} does not run: {error!r}") from error
    execute: Callable[..., Any] | None = getattr(module, "execute", None)
    if not callable(execute):
        raise ParameterError(f"plugin {path} defines no function execute")
    return execute


def _name_chunkflow() -> None:
    """Let plugins import `Chunk` and `BoundingBox` from chunkflow's modules where chunkflow is not installed."""
    with _naming:
        if "chunkflow" in sys.modules or importlib.util.find_spec("chunkflow") is not None:
            return
        names = ("chunkflow", "chunkflow.chunk", "chunkflow.lib", "chunkflow.lib.cartesian_coordinate")
        modules = {name: types.ModuleType(name) for name in names}
        modules["chunkflow.chunk"].Chunk = Chunk  # type: ignore[attr-defined]
        modules["chunkflow.lib.cartesian_coordinate"].BoundingBox = BoundingBox  # type: ignore[attr-defined]
        sys.modules.update(modules)
