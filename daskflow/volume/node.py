"""What a volume is made of: nodes that say which voxels they need and how to answer from them."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from daskflow.errors import ParameterError, PlanError
from daskflow.geometry import BoundingBox, VolumeSpec, Zyx
from daskflow.stores.base import Store
from daskflow.volume.boundary import Boundaries, Depths, extend
from daskflow.volume.description import describe, describe_function
from daskflow.volume.fetching import fetch_here, held_by_workers
from daskflow.volume.stage import Bound, Scopes, Stage

if TYPE_CHECKING:
    import dask.array as da

Array = np.ndarray[Any, np.dtype[Any]]
Memory = float | Callable[[BoundingBox], float] | None


@dataclass(frozen=True, eq=False)
class Node(ABC):
    """One step of an expression; nodes are compared by identity, so a shared one is evaluated once.

    Attributes:
        spec: the voxels the node can answer for.
    """

    spec: VolumeSpec

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes this one reads."""
        return ()

    @property
    def stored(self) -> Store | None:
        """The store whose voxels these are, or a part of; None where something was computed on the way."""
        return None

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:  # noqa: ARG002
        """Return the same step over other inputs."""
        return self

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what the voxels depend on, inputs apart, as JSON."""


class Source(Node):
    """A node that fetches its voxels instead of computing them."""

    @abstractmethod
    def fetch(self, box: BoundingBox) -> Array:
        """Return the voxels of `box`."""


class Calling:
    """A node that calls a function.

    Attributes:
        options: keyword arguments of the function.
    """

    options: dict[str, Any]


class Step(Node):
    """A node that computes its voxels from those of its inputs."""

    @abstractmethod
    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        """Return the box of each input that is needed to answer for `box`."""

    @abstractmethod
    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        """Return the voxels of `box` from arrays that hold what it `needs`."""

    def working(self, box: BoundingBox) -> float:  # noqa: ARG002
        """Return the bytes that `compute` takes for `box`, inputs and result apart."""
        return 0.0


@dataclass(frozen=True, eq=False)
class Stored(Source):
    """The voxels of a store."""

    store: Store

    @property
    def stored(self) -> Store:
        return self.store

    def fetch(self, box: BoundingBox) -> Array:
        return self.store.read(box)

    def describe(self) -> dict[str, Any]:
        return {"store": self.store.fingerprint(), "fill_missing": self.store.fill_missing}


@dataclass(frozen=True, eq=False)
class Generated(Source, Calling):
    """Voxels that follow from where they lie.

    Attributes:
        function: gives the voxels of a box.
        options: its keyword arguments.
    """

    function: Callable[..., Any]
    options: dict[str, Any]

    def fetch(self, box: BoundingBox) -> Array:
        return checked(np.asarray(self.function(box, **self.options)), box, self.spec, self.function)

    def describe(self) -> dict[str, Any]:
        return {
            "function": describe_function(self.function),
            "options": describe(self.options),
            "output": f"{self.spec.dtype} {self.spec.channels} {self.spec.box}",
        }


@dataclass(frozen=True, eq=False)
class Waiting(Source):
    """The voxels of a store that some stages have yet to fill.

    Attributes:
        store: gives the store of what the stages left, given `left` once that knows where it lies.
        left: what they leave.
        stages: what must run first, in order.
    """

    store: Callable[[Any], Store]
    left: Bound
    stages: tuple[Stage, ...]

    def bound(self, scopes: Scopes) -> Stored:
        """Return the node that reads what the stages left."""
        return Stored(self.spec, self.store(self.left.bind(scopes)))

    def fetch(self, box: BoundingBox) -> Array:
        raise AssertionError(f"{box} asked of stages that have not run")

    def describe(self) -> dict[str, Any]:
        return {"stages": [stage.task.describe() for stage in self.stages]}


@dataclass(frozen=True, eq=False)
class DaskSource(Source):
    """The voxels of a dask array."""

    array: da.Array

    def __getstate__(self) -> dict[str, Any]:
        if held_by_workers(self.array):
            raise PlanError(
                "a volume that workers hold after persist() cannot be read from within their blocks:"
                " run this in threads, daskflow.connect('threads'), or leave persist() out"
            )
        return self.__dict__

    def fetch(self, box: BoundingBox) -> Array:
        return fetch_here(self.piece(box))

    def piece(self, box: BoundingBox) -> da.Array:
        """Return the part of the array that holds `box`."""
        return self.array[(..., *box.slices(self.spec.box))]

    def describe(self) -> dict[str, Any]:
        return {"dask": self.array.name}


@dataclass(frozen=True, eq=False)
class Held(Source):
    """A piece of a source, fetched already: it travels with a task.

    Attributes:
        array: the voxels.
        box: where they lie; the source itself may be larger.
    """

    array: Array
    box: BoundingBox

    def fetch(self, box: BoundingBox) -> Array:
        return self.array[(..., *box.slices(self.box))]

    def describe(self) -> dict[str, Any]:
        return {"array": describe(self.array)}


@dataclass(frozen=True, eq=False)
class Crop(Step):
    """A part of its input; what follows sees edges there."""

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @property
    def stored(self) -> Store | None:
        return self.input.stored

    def with_inputs(self, inputs: tuple[Node, ...]) -> Crop:
        return dataclasses.replace(self, input=inputs[0])

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box,)

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:  # noqa: ARG002
        return arrays[0]

    def describe(self) -> dict[str, Any]:
        return {"crop": str(self.spec.box)}


@dataclass(frozen=True)
class Reading:
    """How a mapped function sees one of its inputs.

    Attributes:
        finer: how many voxels of the input make one of the output, per axis (zyx).
        coarser: how many voxels of the output one of the input covers, per axis (zyx).
        depth: voxels of the input read around a block.
        boundary: what stands beyond the volume's edge.
    """

    finer: Zyx
    coarser: Zyx
    depth: Depths
    boundary: Boundaries

    def core(self, box: BoundingBox) -> BoundingBox:
        """Return the input's voxels that lie in the output's `box`."""
        return box.refine(self.finer).coarsen(self.coarser)

    def wanted(self, box: BoundingBox, whole: BoundingBox) -> BoundingBox:
        """Return what the function is given for `box`: core and halo, edges extended where the boundary says so."""
        core = self.core(box).clip(whole)
        grown = core.grow(self.depth.before, self.depth.after)
        inside = grown.clip(whole)
        start, stop = (
            tuple(
                inner if self.boundary[axis] == "none" else outer
                for axis, (inner, outer) in enumerate(zip(side_in, side_out, strict=True))
            )
            for side_in, side_out in ((inside.start, grown.start), (inside.stop, grown.stop))
        )
        return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))

    def read(self, wanted: BoundingBox, whole: BoundingBox) -> BoundingBox:
        """Return what is asked of the input; a periodic edge asks for the whole axis."""
        inside = wanted.clip(whole)
        start, stop = list(inside.start), list(inside.stop)
        for axis in range(3):
            beyond = wanted.start[axis] < whole.start[axis] or wanted.stop[axis] > whole.stop[axis]
            if beyond and self.boundary[axis] == "periodic":
                start[axis], stop[axis] = whole.start[axis], whole.stop[axis]
        return BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


@dataclass(frozen=True, eq=False)
class _OfVolumes(Step, Calling):
    """A function over its inputs.

    Attributes:
        function: gets one array per input.
        volumes: the inputs.
        options: further keyword arguments of the function.
        memory: what it takes while it runs; see `Volume.map_overlap`.
    """

    function: Callable[..., Any]
    volumes: tuple[Node, ...]
    options: dict[str, Any]
    memory: Memory

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.volumes

    def with_inputs(self, inputs: tuple[Node, ...]) -> Self:
        return dataclasses.replace(self, volumes=inputs)

    def working(self, box: BoundingBox) -> float:
        read = self.needs(box)
        if self.memory is None:
            inputs = sum(node.spec.nbytes_of(part) for node, part in zip(self.inputs, read, strict=True))
            return inputs + self.spec.nbytes_of(box)
        return self.memory(box) if callable(self.memory) else self.memory * read[0].size


@dataclass(frozen=True, eq=False)
class Mapped(_OfVolumes):
    """A function over blocks of its inputs, with context around them.

    Attributes:
        function: also gets `box=` (the output's) and `read_box=` (of the first array) if it has parameters of these
            names.
        readings: how each input is seen.
        trim: whether the function's result still holds the halo of the first input.
        box_names: which of `box` and `read_box` the function asks for.
    """

    readings: tuple[Reading, ...]
    trim: bool
    box_names: frozenset[str]

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return tuple(
            reading.read(reading.wanted(box, node.spec.box), node.spec.box)
            for reading, node in zip(self.readings, self.volumes, strict=True)
        )

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        wanted = [r.wanted(box, n.spec.box) for r, n in zip(self.readings, self.volumes, strict=True)]
        seen = [
            extend(array, have, want, node.spec.box, reading.boundary)
            for array, have, want, node, reading in zip(
                arrays, self.needs(box), wanted, self.volumes, self.readings, strict=True
            )
        ]
        places = {"box": box, "read_box": wanted[0]}
        result = self.function(*seen, **self.options, **{name: places[name] for name in self.box_names})
        return checked(self._trimmed(np.asarray(result), box, wanted[0]), box, self.spec, self.function)

    def _trimmed(self, result: Array, box: BoundingBox, wanted: BoundingBox) -> Array:
        if not self.trim:
            return result
        reading = self.readings[0]
        core = reading.core(box).clip(self.volumes[0].spec.box)
        whole = wanted.refine(reading.coarser).coarsen(reading.finer)
        inner = core.refine(reading.coarser).coarsen(reading.finer).clip(box)
        if result.shape[-3:] != whole.shape:
            return result
        return result[(..., *inner.slices(whole))]

    def describe(self) -> dict[str, Any]:
        return {
            "function": describe_function(self.function),
            "options": describe(self.options),
            "readings": [repr(reading) for reading in self.readings],
            "output": f"{self.spec.dtype} {self.spec.channels} {self.spec.box}",
        }


@dataclass(frozen=True, eq=False)
class MappedBoxes(_OfVolumes):
    """A function over boxes of inputs over one box, that reads a box of its own choosing around each.

    Attributes:
        function: also gets `box=` and `read_box=`.
        reads: the inputs' box needed for an output box.
        dear: evaluating it twice costs more than keeping its voxels.
    """

    reads: Callable[[BoundingBox], BoundingBox]
    dear: bool = False

    def _read_box(self, box: BoundingBox) -> BoundingBox:
        return self.reads(box).clip(self.volumes[0].spec.box)

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (self._read_box(box),) * len(self.volumes)

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        result = np.asarray(self.function(*arrays, box=box, read_box=self._read_box(box), **self.options))
        return checked(result, box, self.spec, self.function)

    def describe(self) -> dict[str, Any]:
        return {
            "function": describe_function(self.function),
            "reads": describe(self.reads),
            "options": describe(self.options),
            "output": f"{self.spec.dtype} {self.spec.channels} {self.spec.box}",
        }


def checked(result: Array, box: BoundingBox, spec: VolumeSpec, function: Callable[..., Any]) -> Array:
    """Return a function's result, in native byte order, if it has the shape and dtype declared for `box`.

    Raises:
        ParameterError: naming what was expected and what came.
    """
    name = getattr(function, "__qualname__", repr(function))
    if result.shape != spec.shape_of(box):
        raise ParameterError(
            f"{name} returned shape {result.shape} for box {box}; expected {spec.shape_of(box)}"
            f" ({'zyx' if spec.channels is None else 'czyx'}): declare channels= and factor=, or trim=False"
        )
    if result.dtype.newbyteorder("=") != spec.dtype:
        raise ParameterError(f"{name} returned {result.dtype} for box {box}; declared is {spec.dtype}: pass dtype=")
    return result.astype(spec.dtype, copy=False)
