"""jpeg chunks as jxl and back, without decoding them: jxl of a jpeg gives back the jpeg, to the byte."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from daskflow.errors import CorruptChunkError, StoreError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx
from daskflow.jobs.sinks import LayerSink
from daskflow.stores.precomputed import PrecomputedStore
from daskflow.volume import BlockResult, Estimate, Volume
from daskflow.volume.stage import Stage, Storing, Task

_PAIRS = (("jpeg", "jxl"), ("jxl", "jpeg"))


def transcoding_stage(name: str, volume: Volume, sink: LayerSink, block: Zyx | None) -> Stage | None:
    """Return the stage that copies chunks from jpeg to jxl or back, or None where voxels must be encoded.

    They are copied where a stored volume is saved in the same chunks, with no other quality or effort, and nothing is
    said of chunks that are missing or hold background; jxl becomes jpeg where it was made of one.
    """
    store, asked = volume.stored, sink.layout
    if not isinstance(store, PrecomputedStore) or (store.encoding.name, asked.encoding) not in _PAIRS:
        return None
    plain = not (store.fill_missing or sink.complete) and store.background is sink.drop is None
    alike = (store.spec.chunk, store.spec.chunk_origin) == (asked.chunk, sink.origin)
    whole = volume.box == sink.spec.box == store.spec.box
    if not (plain and alike and whole) or asked.quality is not None or asked.effort is not None:
        return None
    if importlib.util.find_spec("imagecodecs") is None or not _of_jpeg(store):
        return None
    assert sink.unit is not None
    z, y, x = (-(-b // u) * u for b, u in zip(block or volume.block, sink.unit, strict=True))
    return Stage(name, BlockGrid(volume.box, (z, y, x), sink.origin), TranscodeChunks(store, sink))


def _of_jpeg(store: PrecomputedStore) -> bool:
    """Return whether the first chunk that is stored can be jpeg: it is one, or jxl that was made of one."""
    first = next(iter(store.stored_chunks(store.spec.box)), None)
    if first is None or store.encoding.name == "jpeg":
        return first is not None
    try:
        to_jpeg(next(iter(store.chunks.encoded(first).values())), "")
    except StoreError:
        return False
    return True


@dataclass(frozen=True)
class TranscodeChunks(Task):
    """Copy the chunks of a layer as another encoding of the same pixels."""

    verifiable = True
    source: PrecomputedStore
    sink: LayerSink

    def read(self, box: BoundingBox) -> dict[BoundingBox, bytes]:
        return self.source.chunks.encoded(box)

    def compute(self, box: BoundingBox, inputs: dict[BoundingBox, bytes]) -> dict[BoundingBox, bytes]:  # noqa: ARG002
        convert = to_jxl if self.source.encoding.name == "jpeg" else to_jpeg
        return {chunk: convert(data, self.source.chunks.source.where(chunk)) for chunk, data in inputs.items()}

    def write(self, box: BoundingBox, outputs: dict[BoundingBox, bytes]) -> BlockResult:  # noqa: ARG002
        store = self.sink.store()
        assert isinstance(store, PrecomputedStore)
        store.chunks.put(outputs)
        return BlockResult()

    def estimate(self, box: BoundingBox) -> Estimate:
        size = self.sink.spec.nbytes_of(box)
        return Estimate(bytes_read=size, bytes_written=size, memory=2 * size, voxels_read=box.size)

    @property
    def through(self) -> tuple[Storing, ...]:
        return (self.sink,)

    def describe(self) -> dict[str, Any]:
        return {"transcodes": self.source.fingerprint(), **self.sink.describe()}


def to_jxl(data: bytes, where: str) -> bytes:
    """Return a jpeg as jxl, of which `to_jpeg` makes the same bytes."""
    import imagecodecs

    try:
        return bytes(imagecodecs.jpegxl_encode_jpeg(data, usecontainer=True, numthreads=1))
    except (imagecodecs.JpegxlError, ValueError) as error:
        raise CorruptChunkError(f"cannot transcode {where} to jxl: {error}") from error


def to_jpeg(data: bytes, where: str) -> bytes:
    """Return the jpeg that a jxl was made of."""
    import imagecodecs

    try:
        return bytes(imagecodecs.jpegxl_decode_jpeg(data, numthreads=1))
    except (imagecodecs.JpegxlError, ValueError) as error:
        raise CorruptChunkError(f"{where} was not made of a jpeg: {error}; save it with quality=") from error
