"""A box of a stored layer set to one value."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

import daskflow
from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Job, Report
from daskflow.jobs.fingerprint import token
from daskflow.jobs.report import Finish
from daskflow.layers.provenance import WriteProvenance
from daskflow.operators import options
from daskflow.operators.geometry.crop import crop
from daskflow.stores import Store, kvstore
from daskflow.stores.counting import counting
from daskflow.volume import BlockResult, Estimate, Stage, Task, Volume, operator
from daskflow.volume.node import Array
from daskflow.volume.stage import Output

_STATE = "layer.json"


@operator()
def fill(
    volume: Volume,
    *,
    start: options.Start,
    stop: options.Stop | None = None,
    size: options.Size | None = None,
    value: float = 0,
) -> Job:
    """Set a box of a stored layer to one value, in place.

    Only the level that was opened changes. Chunks, or shards, that lie in the box only in part are read and written
    again, each by one block, so what is outside keeps its values. The command line shows what is overwritten and asks,
    unless --yes was said.

    Args:
        volume: a layer of chunks, as it was opened.
        start: first voxel of the box (zyx, global).
        value: what every voxel and channel in the box is set to.

    Returns:
        The job; nothing has been written. Once it is done it is run again only after the layer has changed.

    Raises:
        ParameterError: the volume is computed, cropped or a file without chunks, or the value does not fit the dtype.
        BoundsError: the box reaches outside the volume.
    """
    store = _layer_of(volume)
    box = crop(volume, start=start, size=size, stop=stop).box
    if size is None and stop is None:
        raise ParameterError(f"the box begins at {tuple(start)} zyx; say its size or its stop, too")
    number = volume.spec.held(value)
    unit, origin = store.spec.write_unit, store.spec.chunk_origin
    assert unit is not None
    assert origin is not None
    z, y, x = (-(-b // u) * u for b, u in zip(volume.block, unit, strict=True))
    grid = BlockGrid(box.align(unit, origin).clip(store.spec.box), (z, y, x), origin)
    url = store.opened.url if store.opened is not None else store.url
    level = url if store.mip == 0 else f"{url}.mip{store.mip}"
    changed = token([str(box), number])[:8]
    what = f"voxels {box} (z0-z1_y0-y1_x0-x1) of mip {store.mip} of {kvstore.redact(url)}"
    return Job(
        (Stage("fill", grid, FillBox(store, box, number)),),
        f"{level}.fill-{changed}.daskflow/",
        name="fill",
        finish=(WriteProvenance(store.provenance_url(url), store.mip), Remember(store)),
        confirm=(f"overwrite {box.size:,} {what} with {number}",),
    )


@dataclass(frozen=True)
class FillBox(Task):
    """Set what a block shares with a box to a value; `job` is the URL of the job's directory, once bound."""

    verifiable = True
    store: Store
    filled: BoundingBox
    value: float
    job: str = ""

    def read(self, box: BoundingBox) -> tuple[Array | None, dict[str, int]]:
        if box in self.filled:
            return None, {}
        with counting() as counts:
            return self.store.read(box), dict(counts)

    def compute(self, box: BoundingBox, inputs: tuple[Array | None, dict[str, int]]) -> tuple[Array, dict[str, int]]:
        known, counts = inputs
        spec = self.store.spec
        if known is None:
            return np.full(spec.shape_of(box), self.value, spec.dtype), counts
        array = known.copy()
        array[(..., *self.filled.clip(box).slices(box))] = self.value
        return array, counts

    def write(self, box: BoundingBox, outputs: tuple[Array, dict[str, int]]) -> BlockResult:
        array, counts = outputs
        self.store.write(box, array)
        return BlockResult(empty=not array.any(), counts=counts)

    def makes(self) -> tuple[Output, ...]:
        url = self.store.url if self.store.opened is None else self.store.opened.url
        return (Output(url, "level", mip=self.store.mip, base=self.store.mip),)

    def intact(self) -> bool:
        """Return whether nothing was written to the layer since the job was done."""
        state = kvstore.read_bytes(kvstore.join(self.job, _STATE))
        return state is None or json.loads(state) == self.store.fingerprint()

    def verify(self, box: BoundingBox) -> None:
        self.store.read(box)

    def estimate(self, box: BoundingBox) -> Estimate:
        size = self.store.spec.nbytes_of(box)
        read = 0 if box in self.filled else size
        return Estimate(bytes_read=read, bytes_written=size, memory=read + size, voxels_read=box.size if read else 0)

    def check(self) -> None:
        self.store.check_writable()

    def describe(self) -> dict[str, Any]:
        spec = self.store.spec
        return {
            "daskflow": daskflow.__version__,
            "layer": kvstore.redact(self.store.url),
            "mip": self.store.mip,
            "chunk": spec.write_unit,
            "box": str(self.filled),
            "value": self.value,
        }


@dataclass(frozen=True)
class Remember(Finish):
    """Keep how the layer looks when the job is done, by which a later change is noticed."""

    store: Store

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Store the fingerprint of the layer in the job's directory."""
        kvstore.write_bytes(kvstore.join(directory, _STATE), json.dumps(self.store.fingerprint()).encode())


def _layer_of(volume: Volume) -> Store:
    store = volume.stored_whole
    if store is None:
        raise ParameterError("fill changes a stored layer; give it one as it was opened, not cropped or computed")
    if store.spec.write_unit is None or not store.shared:
        raise ParameterError(f"{store} is not stored in chunks on a disk or in a bucket; fill changes only such layers")
    return store
