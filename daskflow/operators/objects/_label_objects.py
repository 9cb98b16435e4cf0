"""What operators that make an object of each label share: where objects go, and of which labels.

Objects are "meshes" or "skeletons", as `kind` says; a layer's info names the former "mesh".
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from daskflow.config import format_bytes
from daskflow.errors import CorruptChunkError, JobError, MetadataMismatchError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, Zyx, as_zyx
from daskflow.jobs import Report
from daskflow.jobs.evaluate import warn
from daskflow.layers.provenance import provenance
from daskflow.scratch.pieces import Pieces
from daskflow.scratch.records import record_url
from daskflow.stores import kvstore
from daskflow.stores.objects.layer_objects import layer_above, name_objects
from daskflow.volume import Volume

Array = npt.NDArray[Any]

_NAMED = 10
_KEYS = {"meshes": "mesh", "skeletons": "skeletons"}


@dataclass(frozen=True)
class Selection:
    """Which labels get an object.

    Attributes:
        labels: these alone; all but background if None.
        exclude: and not these.
        dust: labels of fewer voxels are left out.
    """

    labels: tuple[int, ...] | None
    exclude: tuple[int, ...]
    dust: int

    @property
    def partial(self) -> bool:
        """Whether labels were chosen by name, which shall not take the place of all in the layer's info."""
        return self.labels is not None or bool(self.exclude)


def object_labels(labels: Sequence[int]) -> tuple[int, ...]:
    """Return labels of objects in order, each once.

    Raises:
        ParameterError: one is background, negative or beyond 64 bits.
    """
    wrong = [label for label in labels if not 0 < label < 2**64]
    if wrong:
        raise ParameterError(f"{wrong[0]} is not a label of an object; labels are 1 to 2^64 - 1")
    return tuple(sorted({int(label) for label in labels}))


def object_place(
    volume: Volume, output: str | os.PathLike[str] | None, *, kind: str, suffix: str = ""
) -> tuple[str | None, int, str]:
    """Return the layer that names the objects (or None), the mip, and the URL of their directory.

    Without an output that is a directory in the precomputed layer that the volume is opened from, or that the same job
    saves it in, ending in `suffix`.

    Raises:
        ParameterError: the volume is not from a precomputed layer, or that cannot be written, and no output is given.
    """
    source = volume.home
    mip = 0 if source is None else source.mip
    if output is not None:
        url = kvstore.normalise(os.fspath(output))
        kvstore.refuse_http(url)
        return layer_above(url), mip, url
    if source is None or not source.extensible:
        raise ParameterError(
            "the volume is not opened from a precomputed layer that can be written, nor saved in one before; give"
            f" output=, a directory for the {kind}"
        )
    return source.url, mip, kvstore.join(source.url, f"{_KEYS[kind]}_mip_{mip}{suffix}")


def fits_float32(box: BoundingBox, *, parts: int = 32) -> bool:
    """Return whether float32, as files have vertices, distinguishes so many places within each voxel of a volume."""
    return max(map(abs, (*box.start, *box.stop))) * parts <= 2**23


def check_own_directory(url: str, job: str, *, kind: str) -> None:
    """Raise unless a directory of objects can be written, and is new or of the job in the directory `job`.

    Raises:
        MetadataMismatchError: there are objects of another job.
        StoreAccessError: the location refuses.
    """
    if kvstore.exists(f"{url}/info") and not kvstore.exists(f"{job}/job.json"):
        raise MetadataMismatchError(
            f"{kvstore.redact(url)} holds {kind} that this job has not made; daskflow remove LAYER --{_KEYS[kind]}"
            " removes those of a layer; or write to another directory, with output"
        )
    kvstore.check_writable(url)


def still_there(url: str, pieces: Pieces, record: str) -> bool:
    """Return whether what a job has made is there: a record in its scratch data until it is complete, then the rest."""
    return kvstore.exists(f"{url}/provenance") or kvstore.exists(record_url(pieces.scope.url, record, 0))


def object_blocks(
    box: BoundingBox, shape: Sequence[int] | None, usual: Zyx, whole: Sequence[str], voxel_bytes: float
) -> tuple[BlockGrid, tuple[str, ...]]:
    """Return the blocks in which objects are made, and what the plan says of them.

    What is made depends on the blocks, so they never follow from the workers.

    Args:
        box: of the volume.
        shape: that was asked for (zyx), if any.
        usual: the one that is taken where none was.
        whole: options that are right for objects that are whole alone, which so take the volume as one block.
        voxel_bytes: of memory.

    Raises:
        ParameterError: there would be several blocks where there must be one.
    """
    if shape is not None:
        grid = BlockGrid(box, as_zyx(shape, name="shape"))
        for option in whole:
            _check_whole(grid, option, voxel_bytes)
        return grid, ()
    grid = BlockGrid(box, as_zyx(tuple(map(max, usual, box.shape))) if whole else usual)
    z, y, x = usual
    note = f"blocks of {z} {y} {x} zyx, for which workers of 4 GB have memory; another --shape gives another result"
    return grid, (note,) if len(grid) > 1 else ()


def _check_whole(grid: BlockGrid, option: str, voxel_bytes: float) -> None:
    """Raise unless one block holds the whole volume, where an option is right for objects that are whole alone.

    Raises:
        ParameterError: there are several blocks; the message says which shape would do, at `voxel_bytes` a voxel.
    """
    if len(grid) > 1:
        z, y, x = grid.box.shape
        raise ParameterError(
            f"{option} would depend on how blocks of {grid.block} voxels zyx cut objects; take the volume as one block,"
            f" shape {z} {y} {x} (about {format_bytes(int(voxel_bytes * grid.box.size))} of memory), or crop it"
        )


def check_joined(counts: dict[str, int], directory: str, *, kind: str, made: str) -> None:
    """Raise unless every piece that was `made`, e.g. traced, was joined with the others of its label.

    Raises:
        JobError: some were lost on the way.
    """
    pieces, joined = counts.get("fragments", 0), counts.get("joined_fragments", 0)
    if pieces != joined:
        raise JobError(
            f"{pieces:,} pieces of {kind} were {made} and {joined:,} joined; the scratch data in {directory} are"
            " damaged: delete the job's directory and run it again"
        )


def report_absent(report: Report, pieces: Pieces, chosen: Selection, *, kind: str) -> None:
    """Warn, also in the report, of labels that were asked for and have no object: at most ten by name."""
    wanted = set(chosen.labels or ()) - set(chosen.exclude)
    if not wanted or pieces.label_count == len(wanted) < 2**16:  # up to which they are counted exactly
        return
    absent = sorted(wanted.difference(*(dict(pieces.labels_of(n)) for n in range(pieces.buckets))))
    if absent:
        more = [f"and {len(absent) - _NAMED:,} more"] if len(absent) > _NAMED else []
        named = [*map(str, absent[:_NAMED]), *more]
        report.results[f"labels_without_{kind}"] = named
        count = f"{len(absent):,} of {len(wanted):,} labels that were asked for"
        warn((f"{count} are not in the volume, or have fewer voxels than dust: {', '.join(named)}",))


def announce(
    report: Report, url: str, info: dict[str, Any] | None, layer: str | None, chosen: Selection, *, kind: str
) -> None:
    """Write the info (if any) and the provenance of a directory, and name it in the layer that it is in."""
    if info is not None:
        kvstore.write_bytes(f"{url}/info", json.dumps(info, indent=1).encode())
    kvstore.write_bytes(f"{url}/provenance", json.dumps(provenance(report), indent=1).encode())
    if layer is not None and (report.counts.get(kind) or not chosen.partial):
        name_objects(layer, chosen.partial, **{_KEYS[kind]: url.rpartition("/")[2]})


def pack_arrays(arrays: Sequence[Array]) -> bytes:
    """Return arrays of 32 or 64 bits as bytes in scratch data: a checksum, the length of each, and what they hold."""
    lengths = np.array([len(array) for array in arrays], "<u4").tobytes()
    rest = b"".join([lengths, *(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)])
    return isal_zlib.crc32(rest).to_bytes(4, "little") + rest


def unpack_arrays(data: bytes, forms: Sequence[tuple[str, int]], where: str) -> list[Array]:
    """Return what `pack_arrays` was given, whose forms are dtypes and columns; `where` is for the message.

    Raises:
        CorruptChunkError: the bytes are not as they were written.
    """
    arrays: list[Array] = []
    try:
        if int.from_bytes(data[:4], "little") != isal_zlib.crc32(memoryview(data)[4:]):
            raise ValueError("checksum")
        at = 4 + 4 * len(forms)
        for (dtype, columns), length in zip(forms, np.frombuffer(data, "<u4", len(forms), 4).tolist(), strict=True):
            array = np.frombuffer(data, f"<{dtype}", columns * length, at)
            arrays.append(array.astype(dtype).reshape(length, columns))
            at += array.nbytes
        if at != len(data):
            raise ValueError("length")
    except ValueError as error:
        raise damaged(where) from error
    return arrays


def damaged(where: str) -> CorruptChunkError:
    """Return the error for pieces that are not as they were written."""
    return CorruptChunkError(f"scratch data at {where} are damaged; delete the job's directory and run it again")
