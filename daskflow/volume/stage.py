"""A pass over a grid, which a volume may have to wait for and a job runs: its blocks, what it leaves, what it makes."""

from __future__ import annotations

import dataclasses
import functools
import math
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from daskflow.errors import CorruptChunkError, MissingChunkError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec, Zyx
from daskflow.stores import kvstore
from daskflow.volume.description import Option, describe

if TYPE_CHECKING:
    from daskflow.volume.volume import Volume

BAD_CHUNK = (MissingChunkError, CorruptChunkError)
BLOCK_BYTES = 2**25
_MOST_LINES = 20
_UNCHUNKED: Zyx = (64, 64, 64)
_FEW = 16  # blocks of a small volume, so that all cores have some


@dataclass(frozen=True)
class Estimate:
    """What one block will cost.

    Attributes:
        bytes_read: bytes of voxels fetched from stores, uncompressed.
        bytes_written: bytes of voxels handed to stores, uncompressed.
        memory: bytes alive at the peak of computing the block.
        voxels_read: voxels fetched, halo included; over the block's own voxels it is how often each is read.
        locked_seconds: CPU seconds for which computing holds Python's lock, so that threads of one process take turns.
        option: the option of the command line by which the memory was chosen, if any, e.g. "mesh --memory"; or the
            shape of a block, where the result depends on it.
    """

    bytes_read: int = 0
    bytes_written: int = 0
    memory: int = 0
    voxels_read: int = 0
    locked_seconds: float = 0.0
    option: str = ""


@dataclass(frozen=True)
class BlockResult:
    """What came out of one block, small enough to travel to the driver.

    Attributes:
        empty: every voxel written was background.
        counts: named totals that add up over blocks, e.g. {"missing_chunks": 3}.
    """

    empty: bool = False
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Output:
    """Something that a job makes, as its directory states it.

    Attributes:
        url: the layer, the file, or the directory of objects.
        kind: level, file, mesh, skeletons or another word; layer is all that is in one.
        mip: of a level.
        base: the level in whose voxels the blocks of the stage are counted.
        dataset: inside a file.
        layer: the layer that objects belong to.
        background: chunks of a level that hold nothing but this are left out.
        how: what else the voxels of a level depend on.
        stage: the one in whose blocks it is made.
        grid: these blocks, as the description of the stage has them.
        overwrite: whether what others have stored there may be replaced; not stated.
    """

    url: str
    kind: str = "file"
    mip: int | None = None
    base: int | None = None
    dataset: str | None = None
    layer: str | None = None
    background: float | None = None
    how: dict[str, Any] | None = None
    stage: str = ""
    grid: dict[str, Any] | None = None
    overwrite: bool = False

    def placed(self) -> Output:
        """Return the same with links in its URLs resolved, and what people may not read left out."""
        layer = None if self.layer is None else place_of(self.layer)
        return dataclasses.replace(self, url=place_of(self.url), layer=layer)

    def within(self, place: str) -> bool:
        """Return whether it is what lies at a place, or a part of it."""
        return place in (self.url, self.layer) or self.url.startswith(f"{place}/")

    def clashes(self, other: Output) -> bool:
        """Return whether two jobs would write the same thing, or one what the other removes."""
        if "layer" in (self.kind, other.kind):
            return self.within(other.url) or other.within(self.url)
        if self.kind != other.kind:
            return False
        if self.kind != "level":
            return self.url in (other.url, other.layer) or other.url == self.layer
        if (self.url, self.mip) != (other.url, other.mip):
            return False
        boxes = [BoundingBox.from_string(one.grid["box"]) for one in (self, other) if one.grid is not None]
        return len(boxes) < 2 or self.base != other.base or not boxes[0].clip(boxes[1]).empty

    def replaced_by(self, other: Output) -> bool:
        """Return whether writing the other leaves nothing of this, or not all; other datasets of a file stay."""
        return self.clashes(other) and (None in (self.dataset, other.dataset) or self.dataset == other.dataset)

    def to_json(self) -> dict[str, Any]:
        """Return what is known of it as JSON values."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value is not None and name != "overwrite"}

    def __str__(self) -> str:
        named = {"layer": "", "level": f" mip {self.mip}", "file": f":{self.dataset}" if self.dataset else ""}
        return f"{self.url}{named.get(self.kind, f' ({self.kind})')}"


def place_of(url: str) -> str:
    """Return where a URL leads when links are followed, as a job's directory may state it."""
    return kvstore.redact(kvstore.resolved(url))


Own = Callable[[str, int], bool]  # whether an earlier run of a job wrote a level, given its URL and mip


class Bound:
    """A frozen dataclass that may hold scratch data, and learns where they lie when a job is run.

    A field `run` is set to what identifies the run, a field `job` to the URL of the job's directory.
    """

    def bind(self, scopes: Scopes) -> Self:
        """Return the same with its scopes, and those of what it holds, placed."""
        held = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        fresh = {name: _bound(value, scopes) for name, value in held.items() if isinstance(value, Bound | tuple)}
        fresh |= {name: getattr(scopes, name) for name in ("run", "job") if name in held}
        return dataclasses.replace(self, **fresh) if fresh else self  # type: ignore[type-var]


def _bound(value: Any, scopes: Scopes) -> Any:
    if isinstance(value, Bound):
        return value.bind(scopes)
    return tuple(_bound(one, scopes) for one in value) if type(value) is tuple else value


@dataclass(frozen=True, eq=False)
class Scope(Bound, Option):
    """One use of an operator in a job: its scratch data lie apart from those of others.

    Two of one name are the same use if they have the same basis.

    Attributes:
        name: a plain word; in a job, later scopes of the same name have a number behind it.
        basis: expressions and values, all that the scratch data depend on; described only when a job is put together.
        url: where the scratch data lie, once placed.
        run: identifies the run, once placed: another run may leave other data there.
    """

    name: str
    basis: Any = None
    url: str = ""
    run: str = ""

    def bind(self, scopes: Scopes) -> Scope:
        return self if self.url else scopes.place(self)

    def describe(self) -> list[Any]:
        return [self.name, self._basis]

    @functools.cached_property
    def _basis(self) -> Any:
        return describe(self.basis)

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, Scope):
            return self is other
        places = [(one.name, one.url, one.run) for one in (self, other)]
        return places[0] == places[1] and self._basis == other._basis

    def __hash__(self) -> int:
        return hash((self.name, self.url, self.run))


class Scopes:
    """Where the scratch data of one run of a job lie: below a URL, those of each scope in a directory named after it.

    What a job binds comes in the order of its stages, so that scopes have the same names in every run.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.met: list[Scope] = []
        self.run = uuid.uuid4().hex

    @property
    def job(self) -> str:
        """The URL of the job's directory."""
        return self.url.rstrip("/").rpartition("/")[0]

    def place(self, scope: Scope) -> Scope:
        """Return a scope that knows where its data lie."""
        if scope not in self.met:
            self.met.append(scope)
        number = 1 + [one for one in self.met if one.name == scope.name].index(scope)
        name = scope.name if number == 1 else f"{scope.name}-{number}"
        return Scope(name, url=kvstore.join(self.url, name), run=self.run)


class Storing(Bound):
    """What stores something for each block: a task, or one of the consumers of a task that evaluates volumes.

    It is a frozen dataclass, is pickled to workers, is idempotent, and gives the same bytes each time.

    Attributes:
        verifiable: whether what it stored can be verified.
    """

    verifiable: ClassVar[bool] = False

    def write(self, box: BoundingBox, outputs: Any) -> BlockResult:
        """Store a block; it is done once this returned."""
        raise NotImplementedError

    @property
    def through(self) -> tuple[Storing, ...]:
        """What it stores through, if anything, which the methods below ask by default."""
        return ()

    def check(self) -> None:
        """Raise what can be known to fail before anything runs; create what is written to."""
        for one in self.through:
            one.check()

    def refuse_to_replace(self, box: BoundingBox, own: Own) -> None:
        """Raise when writing all of `box`, that of the grid, would replace what others have stored."""
        for one in self.through:
            one.refuse_to_replace(box, own)

    def describe(self) -> dict[str, Any]:
        """Return all that what is stored depends on, as JSON."""
        raise NotImplementedError

    def makes(self) -> tuple[Output, ...]:
        """Return what it writes where it is to stay."""
        return tuple(made for one in self.through for made in one.makes())

    def intact(self) -> bool:
        """Return whether what earlier runs wrote is still there; if not, every block runs again."""
        return all(one.intact() for one in self.through)

    def verify(self, box: BoundingBox) -> None:
        """Raise when what was stored for a block is missing or damaged; asked only where it is verifiable."""
        verify_all(functools.partial(one.verify, box) for one in self.through if one.verifiable)


def verify_all(checks: Iterable[Callable[[], None]]) -> None:
    """Call all functions, and raise afterwards what the first that raised did, with the lines of all that did."""
    errors = []
    for check in checks:
        try:
            check()
        except BAD_CHUNK as error:
            errors.append(error)
    lines = [line for error in errors for line in str(error).splitlines()]
    if errors:
        more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
        raise type(errors[0])("\n".join([*lines[:_MOST_LINES], *more])) from errors[0]


class Task(Storing):
    """What is done for one block, in three steps that a worker overlaps between neighbouring blocks.

    One that works on small records reads, computes and writes them, and says what the result depends on.

    Attributes:
        reads_outputs: whether it may read what other stages of its job write where it is to stay.
    """

    reads_outputs: ClassVar[bool] = False

    def read(self, box: BoundingBox) -> Any:
        """Fetch what the block needs from stores; nothing by default."""

    def compute(self, box: BoundingBox, inputs: Any) -> Any:  # noqa: ARG002
        """Compute the block from what was read; no I/O, `inputs` not mutated; the inputs by default."""
        return inputs

    @property
    def gpu(self) -> bool:
        """Whether it computes on a GPU where there is one."""
        return False

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        """Predict the cost of a block; nothing by default."""
        return Estimate()


@dataclass(frozen=True)
class Stage:
    """One pass over one grid.

    Attributes:
        name: shown to people, unique in a job.
        grid: the blocks.
        task: what is done for each.
        numbered: the grid counts something else than voxels, e.g. blocks, so that no rate of voxels is shown.
        after: stages that must be done before.
    """

    name: str
    grid: BlockGrid
    task: Task
    numbered: bool = False
    after: tuple[Stage, ...] = field(default=(), repr=False, compare=False)


def numbered(count: int, each: int = 1) -> BlockGrid:
    """Return a grid of tasks that are counted along z, and within each of these along y."""
    return BlockGrid(BoundingBox((0, 0, 0), (count, each, 1)), (1, 1, 1))


def in_order(stages: Sequence[Stage], *, after: Sequence[Stage] = ()) -> tuple[Stage, ...]:
    """Return stages each of which comes after the one before it, and the first after some others."""
    found: list[Stage] = []
    for stage in stages:
        before = found[-1:] or after
        found.append(dataclasses.replace(stage, after=(*stage.after, *before)))
    return tuple(found)


def run_here(stages: Sequence[Stage], scopes: Scopes) -> None:
    """Run stages in this process, block after block."""
    for stage in stages:
        task = stage.task.bind(scopes)
        task.check()
        for box in stage.grid:
            task.write(box, task.compute(box, task.read(box)))


def default_block(spec: VolumeSpec) -> Zyx:
    """Return a block of about 32 MB, less of a volume with few: whole chunks and shards, about a cube of voxels."""
    unit = spec.write_unit or _UNCHUNKED
    block = list(unit)
    item = spec.dtype.itemsize * (spec.channels or 1)
    while math.prod(block) * item * 2 <= min(BLOCK_BYTES, spec.nbytes // _FEW):
        open_axes = [axis for axis in range(3) if block[axis] < spec.box.shape[axis]]
        if not open_axes:
            break
        shortest = min(open_axes, key=lambda axis: block[axis])
        block[shortest] *= 2
    return (block[0], block[1], block[2])


def smaller_block(volume: Volume, voxels: int) -> Zyx:
    """Return a volume's block, halved to at most `voxels` as far as that reads no chunk and no halo twice."""
    expression, block = volume.expression, list(volume.block)
    start, stop = volume.grid[0].start, volume.grid[0].stop
    middle = BoundingBox.from_size([(a + b) // 2 for a, b in zip(start, stop, strict=True)], (1, 1, 1))
    if any(box != middle for box in expression.needed([middle]).values()):
        return volume.block
    chunks = [node.spec.chunk or (1, 1, 1) for node in expression.nodes]
    units = [math.lcm(*(chunk[axis] for chunk in chunks)) for axis in range(3)]
    while math.prod(block) > voxels:
        even = [axis for axis in range(3) if block[axis] % (2 * units[axis]) == 0]
        if not even:
            break
        block[max(even, key=lambda axis: block[axis])] //= 2
    return block[0], block[1], block[2]
