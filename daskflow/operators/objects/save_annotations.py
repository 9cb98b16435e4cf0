"""Points and synapses as Neuroglancer shows them."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from daskflow.errors import MetadataMismatchError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job
from daskflow.jobs.evaluate import VoxelTask
from daskflow.operators import options
from daskflow.scratch.records import required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.annotations import Annotations, write_annotations
from daskflow.stores.objects.located import Located, Points
from daskflow.stores.objects.synapses import Synapses
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, in_order, numbered, operator
from daskflow.volume.expression import Fetched
from daskflow.volume.kinds import taken
from daskflow.volume.stage import Bound, Output, Scope

Array = npt.NDArray[Any]
Sites = Literal["synapses", "pre", "post"]

_BYTES = 400  # of an annotation, while all are written
_LABELS = "labels"


@operator()
def save_annotations(
    objects: Located,
    segmentation: Volume | None = None,
    *,
    output: options.Destination,
    sites: Annotated[Sites, "of synapses: lines from pre to post, or only the points of one side."] = "synapses",
    limit: int = 1000,
) -> Job:
    """Write points or synapses as a precomputed annotation layer, which Neuroglancer opens at any size.

    It has a spatial index, by which a viewer loads what is in sight, and indexes by id and, with a segmentation, by the
    label that lies at each site (`pre_segment` and `post_segment`, or `segment`). Confidences and users are properties.

    Args:
        objects: the synapses or points, of a known voxel size; a whole voxel is shown at its middle.
        segmentation: the volume whose labels the annotations belong to; only blocks with a site are read.
        limit: about how many annotations a cell of the spatial index holds; finer levels hold the rest.

    Returns:
        The job; its report counts annotations.

    Raises:
        ParameterError: other objects, or of an unknown voxel size.
        MetadataMismatchError: when it is run, if something else is there.
    """
    if objects.voxel_size is None or not isinstance(objects, Points | Synapses):
        raise ParameterError(f"{objects!r}: give points or synapses of a known voxel size (load-synapses --resolution)")
    if limit < 1:
        raise ParameterError(f"limit is {limit}; give 1 or more")
    url = kvstore.normalise(output)
    kvstore.refuse_http(url)
    found = annotations_of(objects, sites)
    before: tuple[Stage, ...] = ()
    looking = None
    if segmentation is not None:
        volume = taken(segmentation, "labels", "save-annotations", "segmentation")
        looking = LookUp.of(volume, found, Scope("annotations", (volume.expression, volume.block, url)))
        stage = Stage("look-up-labels", numbered(max(1, len(looking.blocks))), looking, numbered=True)
        before = (*volume.expression.stages, *in_order((stage,), after=volume.expression.stages))
    writing = Stage("write-annotations", numbered(1), WriteAnnotations(found, url, limit, looking), numbered=True)
    made = (Output(url, "annotations"),)
    stages = (*before, *in_order((writing,), after=before[-1:]))
    return Job(stages, f"{url}.daskflow/", name="save annotations", makes=made)


def annotations_of(objects: Points | Synapses, sites: Sites) -> Annotations:
    """Return the annotations of objects, which belong to no segment yet."""
    assert objects.voxel_size is not None
    z, y, x = objects.voxel_size
    if isinstance(objects, Points):
        properties = {} if objects.confidences is None else {"confidence": objects.confidences.astype(np.float32)}
        segments = {"segment": _unknown(objects.points)}
        return Annotations("POINT", _xyz(objects.points), (x, y, z), properties, {}, segments)
    pre, post = objects.pre, objects.post[:, 1:]
    if sites != "synapses":
        places = pre if sites == "pre" else post
        properties = {name.partition("_")[2]: v for name, v in objects.attributes.items() if name.startswith(sites)}
        segments = {"segment": _unknown(places)}
        kind: Literal["POINT", "LINE"] = "POINT"
        encoded = _xyz(places)
    else:
        parents = objects.post[:, 0].astype(np.int64)
        properties = {name: v[parents] if name.startswith("pre") else v for name, v in objects.attributes.items()}
        segments = {"pre_segment": _unknown(post), "post_segment": _unknown(post)}
        kind, encoded = "LINE", np.concatenate([_xyz(pre[parents]), _xyz(post)], axis=1)
    typed = {name: v.astype(np.float32 if name.endswith("confidence") else np.int32) for name, v in properties.items()}
    names = {name: objects.users for name in typed if name.endswith("users")}
    return Annotations(kind, encoded, (x, y, z), typed, names, segments)


def _unknown(places: Array) -> npt.NDArray[np.uint64]:
    return np.zeros(len(places), np.uint64)


def _xyz(places: Array) -> Array:
    """Return places (zyx) as xyz, whole voxels as their middles."""
    return places[:, ::-1] + (0.5 if places.dtype.kind in "iu" else 0.0)


@dataclass(frozen=True, eq=False)
class LookUp(VoxelTask, Bound):
    """Find the label at each of some places, in the blocks of a segmentation that have some.

    Attributes:
        grid: the blocks of the segmentation.
        places: voxels of it (zyx).
        blocks: the numbers of the blocks with places.
        members: of each of these, the rows of its places.
    """

    grid: BlockGrid
    places: npt.NDArray[np.int64]
    blocks: tuple[int, ...]
    members: tuple[Array, ...]
    scope: Scope

    @classmethod
    def of(cls, volume: Volume, annotations: Annotations, scope: Scope) -> LookUp:
        """Return what looks up the labels of annotations, of both ends of lines, one end after the other."""
        ends = annotations.ends.swapaxes(0, 1).reshape(-1, 3)
        nm = ends * np.array(annotations.voxel_size)
        places = np.floor(nm[:, ::-1] / np.array(volume.spec.spacing)).astype(np.int64)
        start, stop = np.array(volume.box.start), np.array(volume.box.stop)
        rows = np.flatnonzero(((places >= start) & (places < stop)).all(1))
        grid = BlockGrid(volume.box, volume.block)
        cells = (places[rows] - start) // np.array(grid.block)
        numbers = np.ravel_multi_index(tuple(cells.T), grid.shape)
        order = np.argsort(numbers, kind="stable")
        blocks, starts = np.unique(numbers[order], return_index=True)
        members = tuple(np.split(rows[order], starts[1:])) if len(blocks) else ()
        return cls(volume.expression, grid, places, tuple(blocks.tolist()), members, scope)

    def read(self, box: BoundingBox) -> Fetched | None:
        number = box.start[0]
        return self.expression.fetch_counted([self.grid[self.blocks[number]]]) if self.blocks else None

    def compute(self, box: BoundingBox, inputs: Fetched | None) -> Any:
        if inputs is None:
            return np.zeros(0, np.uint64), {}
        block = self.grid[self.blocks[box.start[0]]]
        (array,), counts = self.expression.compute_counted([block], inputs)
        assert array is not None
        z, y, x = (self.places[self.members[box.start[0]]] - np.array(block.start)).T
        return array.reshape(block.shape)[z, y, x].astype(np.uint64), counts

    def write(self, box: BoundingBox, outputs: Any) -> BlockResult:
        labels, counts = outputs
        write_record(self.scope.url, _LABELS, box.start[0], {"labels": labels})
        return BlockResult(empty=not labels.any(), counts=counts)

    def labels(self) -> npt.NDArray[np.uint64]:
        """Return the label at each place, 0 for those outside the segmentation."""
        found = np.zeros(len(self.places), np.uint64)
        records = required_records(self.scope.url, _LABELS, range(len(self.blocks)))
        for rows, record in zip(self.members, records, strict=True):
            found[rows] = record["labels"]
        return found

    def whole(self, grid: BlockGrid) -> list[BoundingBox | None]:  # noqa: ARG002
        return [self.grid.box]

    def estimate(self, box: BoundingBox) -> Estimate:
        return self.expression.estimate([self.grid[self.blocks[box.start[0]]]]) if self.blocks else Estimate()

    def describe(self) -> dict[str, Any]:
        return {"does": "LookUp", "expression": self.expression.describe(), "places": _digest(self.places)}


@dataclass(frozen=True, eq=False)
class WriteAnnotations(Task, Bound):
    """Write all annotations, with the labels that were looked up; the one block is all of them."""

    annotations: Annotations
    url: str
    limit: int
    looking: LookUp | None

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        found, counts = self.annotations, {"annotations": len(self.annotations.places)}
        if self.looking is None:
            found = dataclasses.replace(found, segments={})
        else:
            ends = np.split(self.looking.labels(), len(found.segments))
            found = dataclasses.replace(found, segments=dict(zip(found.segments, ends, strict=True)))
            inside = sum(map(len, self.looking.members))
            counts["sites_outside_the_segmentation"] = len(self.looking.places) - inside
        write_annotations(self.url, found, limit=self.limit)
        return BlockResult(counts=counts)

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        return Estimate(memory=_BYTES * len(self.annotations.places))

    def check(self) -> None:
        if kvstore.exists(f"{self.url}/info") and not kvstore.exists(f"{self.url}.daskflow/job.json"):
            raise MetadataMismatchError(f"{kvstore.redact(self.url)} holds something else; write to another directory")
        kvstore.check_writable(self.url)

    def intact(self) -> bool:
        return kvstore.exists(f"{self.url}/info")

    def describe(self) -> dict[str, Any]:
        found = self.annotations
        arrays = [found.places, *found.properties.values()]
        known = {"kind": found.kind, "voxel_size": found.voxel_size, "arrays": [_digest(one) for one in arrays]}
        return {"does": "WriteAnnotations", "url": self.url, "limit": self.limit, **known}


def _digest(array: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
