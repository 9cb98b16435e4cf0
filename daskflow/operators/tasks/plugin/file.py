"""The function ``execute`` of a file: found, run on trial, and run on blocks."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import io
import os
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx, as_voxel_size, as_zyx
from daskflow.geometry.spec import LAYER_TYPES
from daskflow.operators.tasks.plugin import cartesian
from daskflow.operators.tasks.plugin.chunk import Chunk, PointCloud, ProbabilityMap
from daskflow.operators.tasks.plugin.passed import Synapses, handed, taken_back
from daskflow.stores.objects.located import Passed
from daskflow.volume import Volume
from daskflow.volume.description import Option

Array = np.ndarray[Any, np.dtype[Any]]

_TRIAL: Zyx = (16, 17, 18)  # different, so that axes cannot be mistaken for each other
_PLACES = ("PointCloud", "Synapses")  # in what a function says that it returns


@dataclass(frozen=True)
class Output:
    """What a plugin returns for every block.

    Attributes:
        dtype: of the array.
        channels: as of a volume.
        low: voxels that it cuts off before (zyx).
        high: voxels that it cuts off behind (zyx).
        voxel_size: nm (zyx); None for that of the input.
        layer_type: what the plugin states; None if it does not.
    """

    dtype: np.dtype[Any]
    channels: int | None
    low: Zyx
    high: Zyx
    voxel_size: tuple[float, float, float] | None = None
    layer_type: LayerType | None = None

    def spec(self, seen: VolumeSpec, box: BoundingBox) -> VolumeSpec:
        """Return that of the volume, given that of the first input and the box."""
        kept = seen.layer_type if self.dtype == seen.dtype else None
        return seen.replace(
            box=box,
            dtype=self.dtype,
            channels=self.channels,
            channel_names=seen.channel_names if self.channels == seen.channels else (),
            voxel_size=self.voxel_size or seen.voxel_size,
            layer_type=self.layer_type or kept,
            chunk=None,
            shard=None,
            chunk_origin=box.start,
        )


@dataclass(frozen=True)
class PluginFile(Option):
    """The function ``execute`` of a file, whose text workers run as it was planned, with its keyword arguments."""

    path: str
    source: str
    arguments: dict[str, Any] = field(hash=False)

    @classmethod
    def find(cls, name: str, arguments: dict[str, Any]) -> PluginFile | None:
        """Return the plugin of that path or name; None where there is no such file."""
        found = next((place for place in places_of(name) if place.is_file()), None)
        if found is None:
            return None
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

    @property
    def takes_chunks(self) -> bool:
        """Whether the function has a parameter for a chunk, beside those that the arguments name."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return any(
            one.kind is inspect.Parameter.VAR_POSITIONAL or (one.kind in kinds and one.name not in self.arguments)
            for one in inspect.signature(self.execute()).parameters.values()
        )

    def run(self, given: Sequence[Chunk | Passed | None]) -> list[Any]:
        """Return what the function returns for chunks and objects, as a list: nothing for None."""
        values = [handed(one) if isinstance(one, Passed) else one for one in given]
        try:
            result = self.execute()(*values, **self.arguments)
        except SystemExit as error:
            raise ParameterError(f"plugin {self.path} ended Python: {error!r}; return instead") from error
        if result is None:
            return []
        return list(result) if isinstance(result, list | tuple) else [result]

    def run_on(self, arrays: Sequence[Array | Passed | None], box: BoundingBox, seen: VolumeSpec) -> list[Any]:
        """Return the same for arrays that hold a box, and objects."""
        return self.run(
            [
                Chunk(one.copy(), box.start, seen.spacing, seen.layer_type) if isinstance(one, np.ndarray) else one
                for one in arrays
            ]
        )

    def trial(self, volumes: Sequence[Volume | Passed | None], depth: int) -> list[Output] | None:
        """Return what the plugin makes of a block of ones; None if that is points, as it may also say."""
        if any(name in str(inspect.signature(self.execute()).return_annotation) for name in _PLACES):
            return None
        first = next(one for one in volumes if isinstance(one, Volume))
        shape = as_zyx([min(n + 2 * depth, m) for n, m in zip(_TRIAL, first.box.shape, strict=True)])
        box = BoundingBox.from_size(first.box.start, shape)
        ones = [np.ones(v.spec.shape_of(box), v.dtype) if isinstance(v, Volume) else v for v in volumes]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                results = self.run_on(ones, box, first.spec)
        except Exception as error:
            raise ParameterError(
                f"plugin {self.path} failed on ones of {shape} voxels: {error!r}; one that returns points may say so"
                " instead: def execute(...) -> PointCloud"
            ) from error
        found = [taken_back(result, None, None) is not None for result in results]
        if any(found):
            self.check_points(found)
            return None
        return [self._output(result, box, first.spec) for result in results]

    def check_points(self, found: Sequence[bool]) -> None:
        """Raise unless all results are points or synapses."""
        if not all(found):
            raise ParameterError(
                f"plugin {self.path} returned points or synapses as {sum(found)} of {len(found)} results; write two"
                " plugins, as those are of a whole volume, and arrays are of blocks"
            )

    def _output(self, result: Any, box: BoundingBox, seen: VolumeSpec) -> Output:
        array = array_of(result)
        cut = [n - m for n, m in zip(box.shape, array.shape[-3:], strict=False)]
        offset = tuple(getattr(result, "voxel_offset", None) or ())
        placed = bool(offset) and getattr(result, "placed", any(offset))
        low = [int(a - b) for a, b in zip(offset, box.start, strict=True)] if placed else [c // 2 for c in cut]
        if (
            array.ndim not in (3, 4)
            or len(cut) != 3
            or any(a < 0 or a > c for a, c in zip(low, cut, strict=True))
            or (not placed and any(c % 2 for c in cut))
        ):
            where = f" at {offset}" if placed else ""
            raise ParameterError(
                f"plugin {self.path} returned {type(result).__name__} of shape {array.shape}{where} for a block of"
                f" {box.shape} voxels at {box.start}; it must return zyx or czyx, as large or smaller by the same"
                " margin on both sides, or a Chunk that lies inside"
            )
        size = getattr(result, "voxel_size", None)
        kind = getattr(result, "stated_layer_type", None)
        return Output(
            array.dtype,
            array.shape[0] if array.ndim == 4 else None,
            as_zyx(low),
            as_zyx([c - a for a, c in zip(low, cut, strict=True)]),
            None if size is None or tuple(size) in ((1, 1, 1), seen.spacing) else as_voxel_size(size),
            kind if kind in LAYER_TYPES else None,
        )


def array_of(result: Any) -> Array:
    """Return the array of what a plugin returned, in the byte order of this machine."""
    array = np.asarray(getattr(result, "array", result))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def places_of(name: str) -> list[Path]:
    """Return where a plugin of a path or name may lie."""
    file = Path(name if name.endswith(".py") else f"{name}.py")
    folders = [Path(), *(Path(f) for f in [os.environ.get("CHUNKFLOW_PLUGIN_DIR")] if f)]
    return [folder / file for folder in folders]


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
    if importlib.util.find_spec("chunkflow") is None:
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": _import}
    try:
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 (running the user's file is the purpose)
    except (Exception, SystemExit) as error:
        raise ParameterError(f"plugin {path} does not run: {error!r}") from error
    execute: Callable[..., Any] | None = getattr(module, "execute", None)
    if not callable(execute):
        raise ParameterError(f"plugin {path} defines no function execute")
    return execute


def _import(name: str, *args: Any, **options: Any) -> types.ModuleType:
    """Import for the code of a plugin alone, which finds the modules of chunkflow that plugins use."""
    known = _chunkflow()
    if name.partition(".")[0] != "chunkflow":
        return __import__(name, *args, **options)
    if name not in known:
        there = ", ".join(sorted(known))
        raise ImportError(f"chunkflow is not installed, and daskflow has no {name} for plugins; it has {there}")
    fromlist = options.get("fromlist") or (args[2] if len(args) > 2 else ())
    return known[name if fromlist else "chunkflow"]


@functools.cache
def _chunkflow() -> dict[str, types.ModuleType]:
    """Return what stands for chunkflow's modules, by name."""
    places = {name: getattr(cartesian, name) for name in ("BoundingBox", "BoundingBoxes", "Cartesian", "to_cartesian")}
    contents: dict[str, dict[str, Any]] = {
        "chunkflow": {},
        "chunkflow.chunk": {"Chunk": Chunk},
        "chunkflow.chunk.base": {"Chunk": Chunk},
        "chunkflow.chunk.probability_map": {"ProbabilityMap": ProbabilityMap},
        "chunkflow.lib": {},
        "chunkflow.lib.bounding_boxes": places,
        "chunkflow.lib.cartesian_coordinate": places,
        "chunkflow.point_cloud": {"PointCloud": PointCloud},
        "chunkflow.synapses": {"Synapses": Synapses},
    }
    modules = {name: types.ModuleType(name) for name in contents}
    for name, module in modules.items():
        vars(module).update(contents[name])
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(modules[parent], own, module)
    return modules
