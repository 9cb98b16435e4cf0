"""Evaluation: boxes flow from the outputs back to the sources, then voxels flow forward.

    source ──► step ──► output          needed():  box  ◄── box  ◄── box
         └───► step ──► output          compute(): array ──► array ──► array

Every node is evaluated once per block, on the union of what its consumers need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.counting import counting
from daskflow.stores.memory import ArrayStore
from daskflow.volume.description import Option
from daskflow.volume.mapping import MappedAfter
from daskflow.volume.node import Array, Calling, DaskSource, Gathered, Held, Node, Source, Step, Stored, Waiting
from daskflow.volume.stage import Bound, Estimate, Scopes, Stage, run_here

Boxes = dict[int, BoundingBox]
Arrays = dict[int, Array]
Fetched = tuple[Arrays, dict[str, int]]


class Expression(Bound, Option):
    """Some nodes to answer for together, and all that they are made of.

    Attributes:
        outputs: the nodes to answer for.
        nodes: they and everything below them, inputs before consumers.
    """

    def __init__(self, outputs: Sequence[Node]) -> None:
        self.outputs = tuple(outputs)
        self.nodes = _sorted(self.outputs)
        self._at = {id(node): index for index, node in enumerate(self.nodes)}

    def __reduce__(self) -> tuple[Any, ...]:
        return (Expression, (self.outputs,))

    def __getitem__(self, node: Node) -> int:
        return self._at[id(node)]

    @property
    def places(self) -> list[int]:
        """Where its outputs are among its nodes: which `describe` does not say."""
        return [self[node] for node in self.outputs]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that must have run before anything can be fetched, in order."""
        found: dict[int, Stage] = {}
        for node in self.nodes:
            if isinstance(node, Waiting | MappedAfter):
                found |= {id(stage): stage for stage in node.stages if id(stage) not in found}
        return tuple(found.values())

    def bind(self, scopes: Scopes) -> Expression:
        """Return the expression that reads what its stages left."""
        fresh: dict[int, Node] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Waiting | MappedAfter):
                fresh[index] = node.bound(scopes)
            elif isinstance(node, Stored) and isinstance(node.store, ArrayStore):
                fresh[index] = Stored(node.spec, node.store.with_scratch(scopes.url))
        return self._replaced(fresh)

    def resolved(self, directory: str) -> Expression:
        """Return the expression after running, in this process, the stages it waits for, below the URL `directory`."""
        scopes = Scopes(directory)
        run_here(self.stages, scopes)
        return self.bind(scopes)

    def needed(self, boxes: Sequence[BoundingBox | None], *, gathered: bool = False) -> Boxes:
        """Return the box that each node must answer for, by its place in `nodes`, given one or none for each output.

        If `gathered`, inputs of nodes that gather are asked, too, for one box that holds all their parts.
        """
        needed: Boxes = {}
        for node, box in zip(self.outputs, boxes, strict=True):
            if box is not None:
                _add(needed, self[node], box)
        for index in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[index]
            if index in needed and isinstance(node, Step):
                for source, box in zip(node.inputs, node.needs(needed[index]), strict=True):
                    _add(needed, self[source], box)
            elif gathered and index in needed and isinstance(node, Gathered):
                _add(needed, self[node.input], node.hull(needed[index]))
        return needed

    def fetch(self, needed: Boxes) -> Arrays:
        """Return the voxels of the sources."""
        return {
            index: _gather(node, needed[index]) if isinstance(node, Gathered) else node.fetch(needed[index])
            for index, node in enumerate(self.nodes)
            if index in needed and isinstance(node, Source)
        }

    def compute(self, needed: Boxes, fetched: Arrays) -> Arrays:
        """Return the voxels of the outputs, by their place in `nodes`; arrays are dropped after their last use."""
        values = {index: _frozen(array) for index, array in fetched.items()}
        live = self._live(needed, fetched)
        steps = [(at, node) for at, node in enumerate(self.nodes) if at in live and isinstance(node, Step)]
        last_use = {self[i]: at for at, node in steps for i in node.inputs}
        keep = {self[node] for node in self.outputs}
        for index, step in steps:
            places = [self[i] for i in step.inputs]
            arrays = [
                values[place][(..., *box.slices(needed[place]))] if place in values else _zeros(source.spec, box)
                for place, source, box in zip(places, step.inputs, step.needs(needed[index]), strict=True)
            ]
            values[index] = _frozen(step.compute(needed[index], arrays))
            for place in set(places) - keep:
                if last_use[place] == index:
                    values.pop(place, None)
        return {index: values[index] for index in keep if index in values}

    def _live(self, needed: Boxes, fetched: Arrays) -> set[int]:
        """Return the places of the nodes that the outputs depend on, given what was fetched."""
        live = {self[node] for node in self.outputs} & needed.keys()
        for index in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[index]
            if index in live and isinstance(node, Step):
                places = [self[i] for i in node.inputs]
                known = [
                    fetched[place][(..., *box.slices(needed[place]))] if place in fetched else None
                    for place, box in zip(places, node.needs(needed[index]), strict=True)
                ]
                live |= set(places[1:] if node.spares_first(needed[index], known) else places)
        return live

    def fetch_counted(self, boxes: Sequence[BoundingBox | None]) -> Fetched:
        """Fetch what the outputs need for a box each, and what the stores counted on the way, e.g. missing chunks."""
        with counting() as counts:
            arrays = self.fetch(self.needed(boxes))
        return arrays, dict(counts)

    def compute_counted(
        self, boxes: Sequence[BoundingBox | None], fetched: Fetched
    ) -> tuple[list[Array | None], dict[str, int]]:
        """Return the voxels of each output's box from what `fetch_counted` gave, and all that was counted."""
        needed = self.needed(boxes)
        with counting() as counts:
            values = self.compute(needed, fetched[0])
        counts.update(fetched[1])
        places = [self[node] for node in self.outputs]
        arrays = [
            None if box is None else values[at][(..., *box.slices(needed[at]))]
            for at, box in zip(places, boxes, strict=True)
        ]
        return arrays, dict(counts)

    def evaluate(self, boxes: Sequence[BoundingBox]) -> list[Array]:
        """Return the voxels of each output's box."""
        arrays, _ = self.compute_counted(boxes, self.fetch_counted(boxes))
        return [array for array in arrays if array is not None]

    def check(self) -> None:
        """Raise what can be known to fail before a voxel is read: options of functions that can check themselves."""
        for node in self.nodes:
            for option in node.options.values() if isinstance(node, Calling) else ():
                if isinstance(option, Option):
                    option.check()

    def estimate(self, boxes: Sequence[BoundingBox | None]) -> Estimate:
        """Predict what a block costs: every array as alive at once, and the working memory of the greediest step."""
        needed = self.needed(boxes)
        steps = ((node, needed[i]) for i, node in enumerate(self.nodes) if i in needed and isinstance(node, Step))
        working = max((node.working(box) for node, box in steps), default=0.0)
        sources = {i: box for i, box in needed.items() if isinstance(self.nodes[i], Stored | DaskSource | Waiting)}
        parted = [(n, needed[i]) for i, n in enumerate(self.nodes) if i in needed and isinstance(n, Gathered)]
        gathered = [_estimate_of_parts(node, box) for node, box in parted]
        return Estimate(
            bytes_read=sum(self.nodes[i].spec.nbytes_of(box) for i, box in sources.items())
            + sum(estimate.bytes_read for estimate in gathered),
            memory=sum(self.nodes[i].spec.nbytes_of(box) for i, box in needed.items())
            + math.ceil(working)
            + max((estimate.memory for estimate in gathered), default=0),
            voxels_read=max([0, *(box.size for box in sources.values()), *(e.voxels_read for e in gathered)]),
        )

    @property
    def held_in_memory(self) -> bool:
        """Whether a source lies in this process, so that its pieces must travel with the tasks."""
        return any(_in_memory(node) for node in self.nodes)

    def pieces(self, boxes: Sequence[BoundingBox]) -> list[tuple[int, Any]]:
        """Return the part of each in-memory source that is needed: (place in `nodes`, numpy or dask array)."""
        needed = self.needed(boxes, gathered=True)
        found: list[tuple[int, Any]] = []
        for index, node in enumerate(self.nodes):
            if index in needed and isinstance(node, DaskSource):
                found.append((index, node.piece(needed[index])))
            elif index in needed and _in_memory(node):
                found.append((index, cast(Source, node).fetch(needed[index])))
        return found

    def without_arrays(self) -> Expression:
        """Return the expression with its in-memory sources emptied, fit to be sent to many tasks."""
        nothing = BoundingBox((0, 0, 0), (0, 0, 0))
        return self._replaced(
            {i: Held(n.spec, np.empty(0), nothing) for i, n in enumerate(self.nodes) if _in_memory(n)}
        )

    def with_pieces(self, boxes: Sequence[BoundingBox], pieces: Sequence[tuple[int, Array]]) -> Expression:
        """Return the expression with in-memory sources that hold what `pieces` gave for `boxes`."""
        needed = self.needed(boxes, gathered=True)
        held = {i: Held(self.nodes[i].spec, np.asarray(array), needed[i]) for i, array in pieces}
        return self._replaced(held)

    def replaced(self, fresh: Mapping[Node, Node]) -> Expression:
        """Return the expression with other nodes in place of some."""
        return self._replaced({self[node]: new for node, new in fresh.items()})

    def _replaced(self, fresh: Mapping[int, Node]) -> Expression:
        nodes: list[Node] = []
        for index, old in enumerate(self.nodes):
            node = fresh.get(index, old)
            inputs = tuple(nodes[self[i]] for i in node.inputs)
            changed = any(new is not old for new, old in zip(inputs, node.inputs, strict=True))
            nodes.append(node.with_inputs(inputs) if changed else node)
        return Expression([nodes[self[node]] for node in self.outputs])

    def describe(self) -> list[Any]:
        """Return what the voxels depend on, as JSON: one entry per node, inputs by their place in the list."""
        return [{**node.describe(), "inputs": [self[i] for i in node.inputs]} for node in self.nodes]


def _gather(node: Gathered, box: BoundingBox) -> Array:
    """Return the voxels of a node that gathers: its input is evaluated part by part."""
    below = Expression([node.input])
    result = np.empty(node.spec.shape_of(box), node.spec.dtype)
    for part, place in node.parts(box):
        needed = below.needed([part])
        values = below.compute(needed, below.fetch(needed))
        result[(..., *place.slices(box))] = values[below[node.input]]
    return result


def _estimate_of_parts(node: Gathered, box: BoundingBox) -> Estimate:
    below = Expression([node.input])
    parts = [below.estimate([part]) for part, _ in node.parts(box)]
    return Estimate(
        bytes_read=sum(part.bytes_read for part in parts),
        memory=max((part.memory for part in parts), default=0),
        voxels_read=sum(part.voxels_read for part in parts),
    )


def _in_memory(node: Node) -> bool:
    return isinstance(node, DaskSource | Held) or (isinstance(node, Stored) and isinstance(node.store, ArrayStore))


def _sorted(outputs: Sequence[Node]) -> tuple[Node, ...]:
    order: dict[int, Node] = {}
    stack = [(node, False) for node in reversed(outputs)]
    while stack:
        node, ready = stack.pop()
        if id(node) in order:
            continue
        if ready:
            order[id(node)] = node
        else:
            stack.append((node, True))
            stack.extend((source, False) for source in reversed(node.inputs))
    return tuple(order.values())


def _add(needed: Boxes, index: int, box: BoundingBox) -> None:
    known = needed.get(index)
    if known is None or known.empty:
        needed[index] = box
    elif not box.empty:
        needed[index] = known.union(box)


def _zeros(spec: VolumeSpec, box: BoundingBox) -> Array:
    return np.broadcast_to(np.zeros((), spec.dtype), spec.shape_of(box))


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
