"""The stages of a job in order: what several of them would evaluate is evaluated once.

    label components of p ─► match seams ─► number ─► save s          evaluate p: label components, save p
    save p                                                       ─►     ─► match seams ─► number ─►
    count voxels of s                                                   evaluate s: save s, count voxels

A stage that names none before it, and evaluates nothing, comes after all that are given before it. Of two stages of
which one evaluates or writes what the other writes, the one that is given first comes first.

Stages that evaluate volumes over one box become one where blocks can be joined without taking much more memory, if none
waits for another, and if they wait for the same or evaluate the same.
A volume that is dear to compute, and that several stages are left to evaluate, is kept in a scratch layer first.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

from daskflow.errors import AlignmentError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.evaluate import Assemble, EvaluateVolumes, VoxelTask
from daskflow.jobs.sinks import FileSink, KeptStore, ScratchSink, Sink
from daskflow.volume import Expression, Stage, Volume, in_order
from daskflow.volume.mapping import MappedBoxes
from daskflow.volume.node import Node, Step, Stored, Waiting
from daskflow.volume.stage import Scope, default_block, place_of

_LONGEST_NAME = 80
_LARGEST_JOIN = 4  # times the largest of the blocks that are joined
_LITTLE_MEMORY = 2**29  # bytes of a joined block that any worker has; larger ones take ...
_MORE_MEMORY = 1.25  # ... at most so many times what the blocks take together that are joined
_LITTLE_REPEATED = 1.1  # times that a part is computed, up to which keeping the result costs more than it saves
_PARTS_BYTES = 2**26  # of the result, in a block that computes parts once
_FEWEST_PARTS = 16  # such blocks of a small volume
_MOST_LOOKED = 64  # blocks along an axis


def arranged(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages that do what some stages would, each after those that it comes after."""
    graph = _Graph(stages)
    graph.join()
    graph.keep()
    return graph.sorted()


def notes_on(stages: Sequence[Stage]) -> tuple[str, ...]:
    """Return a line for each volume that arranged stages keep in scratch data."""
    found = []
    for stage in stages:
        for consumer in stage.task.consumers if isinstance(stage.task, EvaluateVolumes) else ():
            if kept := consumer.kept(stage.grid.box):
                users = [other.name for other in stages if any(one.name == stage.name for one in other.after)]
                found.append(f"{stage.name}: {kept} for {', '.join(users)}")
    return tuple(found)


class _Graph:
    """Stages, and which come after which."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = dict(enumerate(stages))
        places = {id(stage): number for number, stage in self.stages.items()}
        self.before: dict[int, set[int]] = {}
        read, made = list(map(_read, stages)), list(map(_made, stages))
        for number, stage in self.stages.items():
            if stage.after or isinstance(stage.task, EvaluateVolumes):
                rivals = {n for n in range(number) if read[n] & made[number] or made[n] & (read[number] | made[number])}
                self.before[number] = {places[id(one)] for one in stage.after} | rivals
            else:
                self.before[number] = set(range(number))
        written = {n for n, stage in self.stages.items() if isinstance(stage.task, EvaluateVolumes | Assemble)}
        for number, stage in self.stages.items():
            if stage.task.reads_outputs:
                self.before[number] |= {n for n in written if number not in self._all_before(n)}

    def _all_before(self, number: int) -> set[int]:
        """Return the stages that one comes after, at once or by others."""
        seen: set[int] = set()
        left = [number]
        while left:
            new = self.before[left.pop()] - seen
            seen |= new
            left += new
        return seen

    def join(self) -> None:
        """Make one stage of those that evaluate volumes over one box."""
        groups: dict[tuple[BoundingBox, tuple[float, ...]], list[int]] = {}
        for number, stage in list(self.stages.items()):
            if not isinstance(stage.task, EvaluateVolumes):
                continue
            spacing = stage.task.expression.outputs[0].spec.spacing
            group = groups.setdefault((stage.grid.box, spacing), [])
            for other in group:
                apart = other not in self._all_before(number) and number not in self._all_before(other)
                first = self.stages[other]
                akin = self.before[other] == self.before[number] or _share(first, stage)
                if apart and akin and (joined := _joined(first, stage)) is not None:
                    self._replace(other, number, joined)
                    break
            else:
                group.append(number)
        for number, stage in self.stages.items():
            if isinstance(stage.task, Assemble):
                self.stages[number] = dataclasses.replace(stage, task=Assemble(self._gathered(stage.task.sink)))

    def _replace(self, kept: int, gone: int, joined: Stage) -> None:
        self.stages[kept] = joined
        del self.stages[gone]
        self.before[kept] = (self.before[kept] | self.before.pop(gone)) - {kept, gone}
        self.before = {n: {kept if b == gone else b for b in before} for n, before in self.before.items()}

    def _gathered(self, sink: FileSink) -> FileSink:
        """Return the sink of a file as it is where its blocks are gathered."""
        tasks = (stage.task for stage in self.stages.values() if isinstance(stage.task, EvaluateVolumes))
        sinks = (one for task in tasks for one in task.sinks if isinstance(one, FileSink))
        return next(one for one in sinks if (one.url, one.dataset) == (sink.url, sink.dataset))

    def keep(self) -> None:
        """Keep in scratch layers what is dear and evaluated by several stages, or by one in parts again and again."""
        while (shared := self._shared() or self._repeated()) is not None:
            node, hull, users = shared
            waiting = self._kept_by_parts(node, hull, users) or self._kept_by_blocks(node, hull, users)
            number = max(self.stages) + 1
            (self.stages[number],) = waiting.stages
            self.before[number] = functools.reduce(set.intersection, map(self._all_before, users))
            for user in users:
                task = self.stages[user].task
                assert isinstance(task, VoxelTask)
                task = dataclasses.replace(task, expression=task.expression.replaced({node: waiting}))
                self.stages[user] = dataclasses.replace(self.stages[user], task=task)
                self.before[user] = self.before[user] | {number}

    def _kept_by_blocks(self, node: MappedBoxes, hull: BoundingBox, users: Sequence[int]) -> Waiting:
        """Return the node whose voxels a stage of its own evaluates."""
        first = Expression([node])
        blocks = [stage.grid.block for n in users if (stage := self.stages[n]).grid.box == hull]
        block = max(blocks, key=math.prod, default=default_block(node.spec.replace(box=hull)))
        sink = ScratchSink("voxels", node.spec.replace(box=hull), block, Scope("kept", (first, hull)))
        stage = Stage("keep-in-scratch", BlockGrid(hull, block), EvaluateVolumes.into(first, sink))
        return Waiting(node.spec, KeptStore, sink, (stage,))

    def _kept_by_parts(self, node: MappedBoxes, hull: BoundingBox, users: Sequence[int]) -> Waiting | None:
        """Return the node of which a stage of its own computes every part once; None where that saves little."""
        if node.once is None:
            return None
        repeats = max(_repeats(self.stages[user], node, hull) for user in users)
        if repeats <= _LITTLE_REPEATED:
            return None
        tasks = [self.stages[user].task for user in users]
        asked = [task.block for task in tasks if isinstance(task, EvaluateVolumes) and task.block is not None]
        largest = max(math.prod(block) for block in asked) if asked else 0
        voxel = node.spec.nbytes_of(BoundingBox((0, 0, 0), (1, 1, 1)))
        size = largest * voxel or min(_PARTS_BYTES, node.spec.nbytes_of(hull) / _FEWEST_PARTS)
        return node.once.kept(node, hull, size, repeats)

    def _repeated(self) -> tuple[MappedBoxes, BoundingBox, list[int]] | None:
        """Return a dear node of which one stage would compute parts again and again, and what is needed of it."""
        for node, found in self._dear():
            ((number, hull),) = found[:1]
            stage = self.stages[number]
            assert isinstance(stage.task, VoxelTask)
            able = len(found) == 1 and node.once is not None and not _spared(stage.task.expression, node)
            if able and _repeats(stage, node, hull) > _LITTLE_REPEATED:
                return node, hull, [number]
        return None

    def _shared(self) -> tuple[MappedBoxes, BoundingBox, list[int]] | None:
        """Return a dear node that several stages evaluate, the box that they need of it, and these stages."""
        for node, found in self._dear():
            hull = functools.reduce(BoundingBox.union, (box for _, box in found))
            if len(found) > 1 and hull.size < sum(box.size for _, box in found):
                return node, hull, [number for number, _ in found]
        return None

    def _dear(self) -> list[tuple[MappedBoxes, list[tuple[int, BoundingBox]]]]:
        """Return each dear node with the stages that evaluate it and what they need; what is made of others first."""
        needed: dict[int, list[tuple[int, BoundingBox]]] = {}
        nodes: dict[int, MappedBoxes] = {}
        for number, stage in self.stages.items():
            if isinstance(stage.task, VoxelTask):
                for node, box in stage.task.dear(stage.grid):
                    nodes[id(node)] = node
                    needed.setdefault(id(node), []).append((number, box))
        found = [(nodes[key], boxes) for key, boxes in needed.items()]
        return sorted(found, key=lambda one: len(Expression([one[0]]).nodes), reverse=True)

    def sorted(self) -> tuple[Stage, ...]:
        """Return the stages, each after those that it comes after, else as they were given."""
        done: dict[int, Stage] = {}
        while len(done) < len(self.stages):
            ready = (n for n in self.stages if n not in done and self.before[n] <= done.keys())
            number = next(ready)
            after = tuple(done[n] for n in sorted(self.before[number]))
            done[number] = dataclasses.replace(self.stages[number], after=after)
        return tuple(done.values())


def _read(stage: Stage) -> set[tuple[str, int]]:
    """Return the stored levels and files that a stage evaluates, where links lead."""
    nodes = stage.task.expression.nodes if isinstance(stage.task, VoxelTask) else ()
    return {(place_of(node.store.url), node.store.mip) for node in nodes if isinstance(node, Stored)}


def _made(stage: Stage) -> set[tuple[str, int]]:
    """Return the levels and files that a stage makes, where links lead; a file as its only level."""
    return {(place_of(one.url), one.mip or 0) for one in stage.task.makes()}


def _share(one: Stage, other: Stage) -> bool:
    """Return whether two stages that evaluate volumes would evaluate the same node."""
    tasks = [stage.task for stage in (one, other) if isinstance(stage.task, EvaluateVolumes)]
    mine, theirs = ({id(node) for node in task.expression.nodes} for task in tasks)
    return not mine.isdisjoint(theirs)


def _joined(one: Stage, other: Stage) -> Stage | None:
    """Return one stage of two that evaluate volumes over the same box, None when their blocks cannot be joined."""
    tasks = [stage.task for stage in (one, other) if isinstance(stage.task, EvaluateVolumes)]
    asked = {task.block for task in tasks if task.block is not None}
    if len(asked) > 1:
        raise ParameterError(
            f"sinks over the same box ask for different blocks: {sorted(asked)} zyx; give all the same"
        )
    block = next(iter(asked), None)
    consumers = [consumer for task in tasks for consumer in task.consumers]
    largest = max((one.grid.block, other.grid.block), key=math.prod)
    if _common_corner(one.grid.box, consumers) is None:
        return None
    grid = grid_of(one.grid.box, block, largest, consumers)
    if not _holds(grid, consumers, math.prod(map(min, block or largest, grid.box.shape))):
        return None
    expression = Expression([node for task in tasks for node in task.expression.outputs])
    first = len(tasks[0].expression.outputs)
    takes = (*tasks[0].takes, *(tuple(first + place for place in places) for places in tasks[1].takes))
    placed = tuple(consumer.placed(grid.block) for consumer in consumers)
    name = "-and-".join(dict.fromkeys([*one.name.split("-and-"), *other.name.split("-and-")]))
    name = name if len(name) < _LONGEST_NAME else f"{len(consumers)}-at-once"
    joined = Stage(name, grid, EvaluateVolumes(expression, placed, takes, block))
    apart = _memory(one) + _memory(other)
    return joined if block is not None or _memory(joined) <= max(_LITTLE_MEMORY, _MORE_MEMORY * apart) else None


def _repeats(stage: Stage, node: MappedBoxes, hull: BoundingBox) -> float:
    """Return how often the blocks of a stage compute a part of a node, from up to 64 blocks along each axis."""
    assert isinstance(stage.task, VoxelTask)
    assert node.once is not None
    repeats = 1.0
    for axis, count in enumerate(stage.grid.shape):
        places = range(0, count, -(-count // _MOST_LOOKED))
        parts = 0
        for place in places:
            z, y, x = (place if one == axis else 0 for one in range(3))
            box = stage.grid[stage.grid.index((z, y, x))]
            needed = stage.task.expression.needed(stage.task.whole(BlockGrid(box, box.shape)), gathered=True)
            at = stage.task.expression[node]
            parts += node.once.counts(needed[at])[axis] if at in needed and not needed[at].empty else 0
        repeats *= parts * count / len(places) / max(1, node.once.counts(hull)[axis])
    return repeats


def _spared(expression: Expression, node: Node) -> bool:
    """Return whether some blocks may need nothing of a node, e.g. those that a mask leaves out."""
    sparing = (s for s in expression.nodes if isinstance(s, Step) and type(s).spares_first is not Step.spares_first)
    return any(node in Expression([step.inputs[0]]).nodes for step in sparing)


def _memory(stage: Stage) -> int:
    """Return the bytes that a block takes."""
    block = BoundingBox.from_size(stage.grid.box.start, stage.grid.block).clip(stage.grid.box)
    return stage.task.estimate(block).memory


def _holds(grid: BlockGrid, consumers: Sequence[Consumer], voxels: int) -> bool:
    """Return whether blocks, of about so many voxels, are made of whole blocks of the consumers'."""
    if math.prod(map(min, grid.block, grid.box.shape)) > _LARGEST_JOIN * voxels:
        return False
    gathered = [BlockGrid(grid.box, grid.block) for one in consumers if isinstance(one, FileSink)]
    for own in (*_grids(consumers), *gathered):
        assert own.origin is not None
        assert grid.origin is not None
        for count, block, origin, other, its in zip(
            grid.shape, grid.block, grid.origin, own.block, own.origin, strict=True
        ):
            if count > 1 and (block % other or (origin - its) % other):
                return False
    return True


def _common_corner(box: BoundingBox, consumers: Sequence[Consumer]) -> Zyx | None:
    """Return a corner from which the units of all consumers can be counted, the volume's if possible; None without."""
    counted = [(one.unit, one.origin or box.start) for one in consumers if one.unit is not None]

    def fits(corner: Zyx) -> bool:
        return all((c - o) % u == 0 for unit, at in counted for c, o, u in zip(corner, at, unit, strict=True))

    return next((corner for corner in (box.start, *(at for _, at in counted)) if fits(corner)), None)


def _grids(consumers: Sequence[Consumer]) -> Iterator[BlockGrid]:
    return (consumer.grid for consumer in consumers if consumer.grid is not None)


def grid_of(box: BoundingBox, block: Zyx | None, preferred: Zyx, consumers: Sequence[Consumer]) -> BlockGrid:
    """Return the grid in which consumers can be handed a volume: of the block that was asked for, if it fits them.

    Where none was, the preferred one is rounded up to whole chunks and shards of what is written, and then made shorter
    where that leaves it about as many voxels.
    """
    corner = _common_corner(box, consumers)
    if corner is None:
        raise AlignmentError(
            f"the chunks that are written of {box} begin at different corners; write one after the other"
        )
    units = [(1, 1, 1), *(consumer.unit for consumer in consumers if consumer.unit is not None)]
    written = [math.lcm(*(unit[axis] for unit in units)) for axis in range(3)]
    if block is not None:
        nearest = [-(-b // u) * u for b, u in zip(block, written, strict=True)]
        if any(b != n and b < s for b, n, s in zip(block, nearest, box.shape, strict=True)):
            raise AlignmentError(
                f"block {block} zyx is not a multiple of {tuple(written)}, the chunks or shards it writes;"
                f" nearest is {tuple(nearest)}"
            )
        return BlockGrid(box, (nearest[0], nearest[1], nearest[2]), corner)
    grids = list(_grids(consumers))
    z, y, x = (math.lcm(unit, *(grid.block[axis] for grid in grids)) for axis, unit in enumerate(written))
    fitting = _about_as_large(preferred, (z, y, x), box.shape)
    origin = grids[0].origin if grids and len(units) == 1 else corner
    return BlockGrid(box, fitting, origin)


def evaluate_stage(name: str, volume: Volume, sink: Sink, *, block: Zyx | None = None) -> Stage:
    """Return the stage that hands a volume to a sink, in blocks (zyx) of the volume's size unless given."""
    expression = volume.expression
    grid = grid_of(volume.box, block, volume.block, [sink])
    task = EvaluateVolumes.into(expression, sink.placed(grid.block), block=block)
    return Stage(name, grid, task, after=expression.stages)


def file_stages(name: str, volume: Volume, sink: FileSink, *, block: Zyx | None = None) -> tuple[Stage, ...]:
    """Return the stages that gather a volume's blocks and write a file of them; arguments as for `evaluate_stage`."""
    gather = evaluate_stage(f"gather-{name}", volume, sink, block=block)
    write = Stage(f"write-{name}", BlockGrid(volume.box, volume.box.shape), Assemble(sink.placed(gather.grid.block)))
    return in_order((gather, write))


def _about_as_large(preferred: Zyx, unit: Zyx, size: Zyx) -> Zyx:
    """Return a block of whole units, with about the voxels of another, or one unit where that has more."""
    block = [-(-b // u) * u for b, u in zip(preferred, unit, strict=True)]
    voxels = math.prod(map(min, preferred, size))
    while math.prod(map(min, block, size)) >= 2 * voxels:
        axis = max(range(3), key=lambda axis: min(block[axis], size[axis]) / unit[axis])
        units = -(-min(block[axis], size[axis]) // unit[axis])
        if units < 2:
            break
        block[axis] = -(-units // 2) * unit[axis]
    return block[0], block[1], block[2]
