"""A function of the user's own: a Python file with a function ``execute`` over chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from daskflow.clusters.threads import available_memory
from daskflow.config import format_bytes
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx, as_zyx
from daskflow.jobs import Job
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import EvaluateVolumes
from daskflow.operators.aliases import FORMER_OPTIONS, SHIPPED
from daskflow.operators.tasks.plugin.chunk import Chunk
from daskflow.operators.tasks.plugin.file import Array, Output, PluginFile, array_of, parse_arguments, places_of
from daskflow.operators.tasks.plugin.passed import taken_back
from daskflow.stores.objects.located import Located, Passed
from daskflow.volume import BlockResult, Expression, Flag, Stage, Volume, load_operator, operator
from daskflow.volume.description import describe

Fixed = dict[int, Passed | None]  # what every block gets, by its place among the arguments, rising

__all__ = ["Chunk", "parse_arguments", "plugin"]


def _by_task(*inputs: Volume | Passed | None, file: str, args: str | None = None, depth: int = 0) -> bool:
    """Return whether the function returns no volume, and so gets the box of each task."""
    execute = PluginFile.find(file, parse_arguments(args))
    if execute is None or not execute.takes_chunks or not any(isinstance(one, Volume) for one in inputs):
        return False
    return not execute.trial(inputs, depth)


@operator(by_task=_by_task)
def plugin(
    volume: Volume | Passed | None = None,
    *others: Volume | Passed | None,
    file: Annotated[str, Flag("-f")],
    args: Annotated[str | None, Flag("-a")] = None,
    depth: int = 0,
) -> Volume | Located | tuple[Volume | Located, ...] | Job:
    """Run the function ``execute`` of a Python file on every block.

    The file is written as for chunkflow: ``execute(chunk, ...)`` gets chunks, arrays zyx or czyx that know their
    `voxel_offset`, `voxel_size` and `layer_type`, and returns an array or a chunk, or a list of them, one for each name
    of ``-o``. An array that is smaller than what was given is taken to be without the same margin on both sides; a
    chunk says where it lies. A function without parameters for chunks is run once. One that returns nothing is run on
    every block when the line is run. One that returns points, a PointCloud or an array (n, 3) of global voxels zyx, or
    synapses, is run once, at once and in this process, on the whole volume, or on the box of each task of a line; it
    may say so, ``-> PointCloud``, where a block of ones has none. The file is executed: use only what you trust.

    Args:
        volume: the first argument of the function; None is handed over as None, and points, synapses, skeletons and
            what load-json has loaded as chunkflow has them. On the command line `bbox` is the box of the task.
        *others: further arguments, volumes of them over the same box.
        file: path, or name of a file in the working directory or in ``$CHUNKFLOW_PLUGIN_DIR``; or else the name of one
            of chunkflow's own plugins, which are operators here.
        args: arguments: ``name=value;name=value`` become keywords, any other text is passed as ``args``.
        depth: voxels of context that the function needs around each block; they are cut off its result.

    Returns:
        A lazy volume of what the function returns, points or synapses, a tuple where it returns several, or a job
        where it returns nothing.

    Raises:
        ParameterError: there is no such file, it has no ``execute``, or that fails on a small block of ones; or points
            outside of the volume, or a volume that is too large to be handed over whole.
    """
    execute = PluginFile.find(file, parse_arguments(args))
    if execute is None:
        return _operator(file, [one for one in (volume, *others) if one is not None], parse_arguments(args))
    chunks = (volume, *others) if execute.takes_chunks else ()
    given = [one for one in chunks if isinstance(one, Volume)]
    fixed = {at: one for at, one in enumerate(chunks) if not isinstance(one, Volume)}
    if not given:
        return _made(execute, [] if volume is None and not others else list(fixed.values()))
    outputs = execute.trial(chunks, depth)
    if outputs is None:
        return _found(execute, chunks, given, depth)
    if not outputs:
        return _job(execute, given, fixed, depth)
    cut = {(one.low, one.high) for one in outputs}
    if len(cut) > 1:
        raise ParameterError(f"plugin {file} cuts different margins off its results: {sorted(cut)}; they must agree")
    return _volumes(execute, given, fixed, outputs, depth)


def _operator(name: str, volumes: Sequence[Volume | Passed], arguments: dict[str, Any]) -> Volume | Job:
    """Return what the operator gives that stands for a plugin that comes with chunkflow."""
    if name.removesuffix(".py") not in SHIPPED:
        raise ParameterError(
            f"there is no plugin {name!r}; looked for {', '.join(map(str, places_of(name)))}; of chunkflow's own,"
            f" {', '.join(sorted(SHIPPED))} are known"
        )
    for one in volumes:
        if not isinstance(one, Volume):
            raise ParameterError(f"plugin {name} takes volumes, and is given {one!r}")
    called, own = SHIPPED[name.removesuffix(".py")]
    arguments = dict(_here(called, argument, value) for argument, value in arguments.items())
    try:
        result: Volume | Job = load_operator(called).function(*volumes, **(own | arguments))
    except TypeError as error:
        raise ParameterError(f"plugin {name}, {called.replace('_', '-')} here: {error}") from error
    return result


def _here(operator: str, argument: str, value: Any) -> tuple[str, Any]:
    """Return what an argument of a plugin of chunkflow's is called here, and its value."""
    former, option = FORMER_OPTIONS.get(operator, {}), argument.replace("_", "-")
    words = (not value and former.get(f"--no-{option}")) or former.get(f"--{option}")
    if not words:
        return argument, value
    name, value = (words[-1], value) if words[-1].startswith("--") else words[-2:]
    return name.removeprefix("--").replace("-", "_"), value


def _found(
    execute: PluginFile, chunks: Sequence[Volume | Passed | None], given: Sequence[Volume], depth: int
) -> Located | tuple[Located, ...]:
    """Return the points or synapses that a function finds in whole volumes, in this process."""
    box, spec = given[0].box, given[0].spec
    needed, there = sum(one.spec.nbytes_of(box) for one in given), available_memory()
    if depth:
        raise ParameterError(f"plugin {execute.path} returns points, of all of its volume: leave depth={depth} out")
    if needed > there:
        raise ParameterError(
            f"plugin {execute.path} returns points, and would get all of {box} (z0-z1_y0-y1_x0-x1),"
            f" {format_bytes(needed)} in {format_bytes(there)} of memory; crop it, or make tasks of it (generate-tasks)"
        )
    values = [one.read(box) if isinstance(one, Volume) else one for one in chunks]
    try:
        results = [taken_back(one, box, spec.voxel_size) for one in execute.run_on(values, box, spec)]
    except Exception as error:
        raise ParameterError(f"plugin {execute.path}, {box} (z0-z1_y0-y1_x0-x1): {error!r}") from error
    execute.check_points([one is not None for one in results])
    found = tuple(one for one in results if one is not None)
    return found[0] if len(found) == 1 else found


def _made(execute: PluginFile, fixed: list[Passed | None]) -> Volume | Located | tuple[Volume | Located, ...]:
    """Return what a function makes of no chunk, volumes in memory among it."""
    made = [
        taken_back(one, None, None)
        or Volume.from_array(
            array_of(one),
            voxel_offset=tuple(getattr(one, "voxel_offset", (0, 0, 0))),
            voxel_size=getattr(one, "voxel_size", None),
            layer_type=getattr(one, "stated_layer_type", None),
        )
        for one in execute.run(fixed)
    ]
    if not made:
        raise ParameterError(f"plugin {execute.path} gets no volume and returns none; name its volume with -i")
    return made[0] if len(made) == 1 else tuple(made)


def _volumes(
    execute: PluginFile, given: Sequence[Volume], fixed: Fixed, outputs: list[Output], depth: int
) -> Volume | tuple[Volume, ...]:
    """Return the results of a plugin; several are evaluated as one volume of bytes, so that it runs once a block."""
    first, rest = given[0], given[1:]
    low, high = outputs[0].low, outputs[0].high
    box = first.box.shrink(low, high)
    reach = Grown(as_zyx([n + depth for n in low]), as_zyx([n + depth for n in high]))
    specs = [one.spec(first.spec, box) for one in outputs]
    options: dict[str, Any] = {"low": low, "high": high, "seen": first.spec, "fixed": fixed, "count": len(outputs)}
    kinds = tuple((one.dtype.name, one.channels) for one in outputs)
    call = Call(execute, kinds)
    if len(specs) == 1:
        return first.map_boxes(call, *rest, reads=reach, spec=specs[0], **options)
    sizes = [spec.dtype.itemsize * (spec.channels or 1) for spec in specs]
    spec = specs[0].replace(dtype=np.dtype(np.uint8), channels=sum(sizes), channel_names=(), layer_type=None)
    packed = first.map_boxes(call, *rest, reads=reach, spec=spec, **options)
    starts = [sum(sizes[:at]) for at in range(len(sizes) + 1)]
    return tuple(
        packed.map_blocks(
            unpacked,
            dtype=one.dtype,
            channels=one.channels,
            layer_type=one.layer_type,
            first=start,
            stop=stop,
            of=one.dtype.name,
            alone=one.channels is None,
        )
        for one, start, stop in zip(specs, starts[:-1], starts[1:], strict=True)
    )


def _job(execute: PluginFile, given: Sequence[Volume], fixed: Fixed, depth: int) -> Job:
    expression = Expression([one.node for one in given])
    running = RunPlugin(execute, given[0].spec, fixed, depth)
    stage = Stage("run-plugin", given[0].grid, EvaluateVolumes.into(expression, running), after=expression.stages)
    return Job((*expression.stages, stage), None, name=f"plugin {execute.describe()['plugin']}")


@dataclass(frozen=True)
class Grown:
    """The box around a box, so many voxels larger before and behind (zyx)."""

    before: Zyx
    after: Zyx

    def __call__(self, box: BoundingBox) -> BoundingBox:
        return box.grow(self.before, self.after)


@dataclass(frozen=True)
class Call:
    """Runs a plugin on the blocks of volumes.

    Attributes:
        plugin: the function.
        kinds: the dtype and the channels (as of a volume) of each of its results.
    """

    plugin: PluginFile
    kinds: tuple[tuple[str, int | None], ...]

    def __call__(
        self,
        *arrays: Array,
        box: BoundingBox,
        read_box: BoundingBox,
        low: Zyx,
        high: Zyx,
        seen: VolumeSpec,
        fixed: Fixed,
        count: int,
    ) -> Array:
        """Return what the plugin gives for `box`, from arrays that hold `read_box`; several results as bytes."""
        inner = read_box.shrink(low, high)
        results = [array_of(one) for one in self.plugin.run_on(_filled(arrays, fixed), read_box, seen)]
        found = [f"{one.dtype} of shape {one.shape}" for one in results]
        shapes = [inner.shape if channels is None else (channels, *inner.shape) for _, channels in self.kinds]
        expected = [f"{dtype} of shape {shape}" for (dtype, _), shape in zip(self.kinds, shapes, strict=True)]
        if found != expected:
            raise ParameterError(
                f"plugin {self.plugin.path} returned {', '.join(found) or 'nothing'} for the block {read_box}, but"
                f" {', '.join(expected)} is expected from what it returned for a small block of ones; it must return"
                " the same dtypes, channels and margins for every block, e.g. by array.astype('uint32')"
            )
        parts = [one[(..., *box.slices(inner))] for one in results]
        return parts[0] if count == 1 else np.concatenate([_bytes(part) for part in parts])


def _filled(arrays: Sequence[Array], fixed: Fixed) -> list[Array | Passed | None]:
    """Return arrays with what else was given in its places."""
    filled: list[Array | Passed | None] = [*arrays]
    for at, one in fixed.items():  # from the first on
        filled.insert(at, one)
    return filled


def _bytes(array: Array) -> Array:
    """Return an array (zyx or czyx) as its bytes, which become channels."""
    z, y, x = array.shape[-3:]
    split = np.ascontiguousarray(array).reshape(-1, z, y, x, 1).view(np.uint8)
    return np.moveaxis(split, -1, 1).reshape(-1, z, y, x)


def unpacked(array: Array, first: int, stop: int, of: str, alone: bool) -> Array:
    """Return one of several results, of a dtype and with or without channels, from the bytes that it has."""
    item = np.dtype(of).itemsize
    part = array[first:stop].reshape(-1, item, *array.shape[-3:])
    whole: Array = np.ascontiguousarray(np.moveaxis(part, 1, -1)).view(of)[..., 0]
    return whole[0] if alone else whole


@dataclass(frozen=True)
class RunPlugin(Consumer):
    """Runs a plugin, which returns nothing, on blocks."""

    plugin: PluginFile
    seen: VolumeSpec
    fixed: Fixed
    depth: int

    def needs(self, box: BoundingBox) -> BoundingBox:
        return box.grow(self.depth).clip(self.seen.box)

    def compute(self, box: BoundingBox, arrays: list[Array]) -> None:
        self.plugin.run_on(_filled(arrays, self.fixed), self.needs(box), self.seen)

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        return BlockResult()

    def describe(self) -> dict[str, Any]:
        return {**self.plugin.describe(), "fixed": describe(self.fixed), "depth": self.depth}
