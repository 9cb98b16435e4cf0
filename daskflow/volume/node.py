"""What a volume is made of: nodes that say which voxels they need and how to answer from them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from daskflow.errors import ParameterError, PlanError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.base import Store
from daskflow.volume.description import describe, describe_function
from daskflow.volume.stage import Bound, Scopes, Stage

if TYPE_CHECKING:
    import dask.array as da

Array = np.ndarray[Any, np.dtype[Any]]
Memory = float | Callable[[BoundingBox], float] | None


class Level(Protocol):
    """A level of a layer that a job writes."""

    @property
    def url(self) -> str:
        """The layer."""

    @property
    def format(self) -> str:
        """Name of its format."""

    def planned(self) -> Store:
        """Return the level as it will be, which can be asked for all but voxels; nothing is created."""


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

    @property
    def saved(self) -> Level | None:
        """The level to which another stage of the same job writes these voxels, or the volume that they are part of."""
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
    """A node that calls a function with options."""

    spec: VolumeSpec
    function: Callable[..., Any]
    options: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return what the voxels depend on, inputs apart, as JSON."""
        return {
            "function": describe_function(self.function),
            "options": describe(self.options),
            "output": f"{self.spec.dtype} {self.spec.channels} {self.spec.box}",
        }


class Step(Node):
    """A node that computes its voxels from those of its inputs."""

    @abstractmethod
    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        """Return the box of each input that is needed to answer for `box`."""

    @abstractmethod
    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:
        """Return the voxels of `box` from arrays that hold what it `needs`."""

    def spares_first(self, box: BoundingBox, fetched: Sequence[Array | None]) -> bool:  # noqa: ARG002
        """Return whether the voxels of `box` do not depend on the first input, which then is not computed.

        Of the inputs that are sources, `fetched` has what is needed; zeros stand for the first input in `compute`.
        """
        return False

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
class Generated(Calling, Source):
    """Voxels that follow from where they lie: what a function returns for a box and options."""

    function: Callable[..., Any]
    options: dict[str, Any]

    def fetch(self, box: BoundingBox) -> Array:
        return checked(np.asarray(self.function(box, **self.options)), box, self.spec, self.function)


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
        if _futures(dict(self.array.__dask_graph__())):
            raise PlanError(
                "a volume that workers hold after persist() cannot be read from within their blocks:"
                " run this in threads, daskflow.connect('threads'), or leave persist() out"
            )
        return self.__dict__

    def fetch(self, box: BoundingBox) -> Array:
        return _fetch_here(self.piece(box))

    def piece(self, box: BoundingBox) -> da.Array:
        """Return the part of the array that holds `box`."""
        return self.array[(..., *box.slices(self.spec.box))]

    def describe(self) -> dict[str, Any]:
        return {"dask": self.array.name}


@dataclass(frozen=True, eq=False)
class Held(Source):
    """A piece of a source that may be larger, fetched already: it travels with a task."""

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

    @property
    def saved(self) -> Level | None:
        return self.input.saved

    def with_inputs(self, inputs: tuple[Node, ...]) -> Crop:
        return dataclasses.replace(self, input=inputs[0])

    def needs(self, box: BoundingBox) -> tuple[BoundingBox, ...]:
        return (box,)

    def compute(self, box: BoundingBox, arrays: Sequence[Array]) -> Array:  # noqa: ARG002
        return arrays[0]

    def describe(self) -> dict[str, Any]:
        return {"crop": str(self.spec.box)}


@dataclass(frozen=True, eq=False)
class Saved(Crop):
    """Its input, which another stage of the same job writes to a level."""

    level: Level

    @property
    def saved(self) -> Level:
        return self.level


@dataclass(frozen=True, eq=False)
class Gathered(Source):
    """Voxels of one input from several boxes that one box would not hold cheaply, e.g. sections in another order.

        input   |--a--|.....................|--b--|
        result  |--b--|--a--|

    What a block needs is evaluated part by part, when sources are read.
    """

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Gathered:
        return dataclasses.replace(self, input=inputs[0])

    @abstractmethod
    def parts(self, box: BoundingBox) -> Sequence[tuple[BoundingBox, BoundingBox]]:
        """Return, for a box of the result, the parts it consists of: where in the input, and where in the result."""

    def hull(self, box: BoundingBox) -> BoundingBox:
        """Return one box of the input that holds all parts of a box of the result."""
        nothing = BoundingBox(self.input.spec.box.start, self.input.spec.box.start)
        parts = [part for part, _ in self.parts(box)]
        return functools.reduce(BoundingBox.union, parts) if parts else nothing

    def fetch(self, box: BoundingBox) -> Array:
        raise AssertionError(f"{box} asked of a node that an expression gathers")


def checked(result: Array, box: BoundingBox, spec: VolumeSpec, function: Callable[..., Any]) -> Array:
    """Return a function's result, in native byte order, if it has the shape and dtype declared for `box`."""
    name = getattr(function, "__qualname__", repr(function))
    if result.shape != spec.shape_of(box):
        raise ParameterError(
            f"{name} returned shape {result.shape} for box {box}; expected {spec.shape_of(box)}"
            f" ({'zyx' if spec.channels is None else 'czyx'}): declare channels= and factor=, or trim=False"
        )
    if result.dtype.newbyteorder("=") != spec.dtype:
        raise ParameterError(f"{name} returned {result.dtype} for box {box}; declared is {spec.dtype}: pass dtype=")
    return result.astype(spec.dtype, copy=False)


def _fetch_here(array: da.Array) -> np.ndarray[Any, Any]:
    """Return the voxels of a dask array, computed in this thread; chunks that workers hold are fetched from them."""
    import dask.array as da
    from dask.core import flatten

    graph = dict(array.__dask_graph__().cull(set(flatten(array.__dask_keys__()))))
    futures = _futures(graph)
    if futures:
        graph |= next(iter(futures.values())).client.gather(futures)
        array = da.Array(graph, array.name, array.chunks, meta=array._meta)
    return np.asarray(array.compute(scheduler="synchronous"))


def _futures(graph: dict[Any, Any]) -> dict[Any, Any]:
    """Return the chunks of a dask array that workers hold, as after ``persist`` with a client."""
    if "distributed" not in sys.modules:  # then there are none
        return {}
    from distributed import Future

    return {key: value for key, value in graph.items() if isinstance(value, Future)}
