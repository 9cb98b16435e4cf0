"""What operators that write an object for each label have in common: where objects go, and of which labels."""

from __future__ import annotations

import os
from collections.abc import Sequence

from daskflow.errors import JobError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs import Report
from daskflow.jobs.evaluate import warn
from daskflow.scratch.pieces import Pieces
from daskflow.stores import kvstore
from daskflow.stores.objects.naming import layer_above
from daskflow.volume import Volume

Place = tuple[str | None, int, str]
_NAMED = 10


def object_place(volume: Volume, output: str | os.PathLike[str] | None, *, kind: str, suffix: str = "") -> Place:
    """Return the layer that names the objects (or None), the mip, and the URL of their directory.

    Args:
        volume: what objects are made of.
        output: the directory; without it, one in the precomputed layer that the volume is opened from.
        kind: meshes or skeletons; the directory begins with ``mesh`` or ``skeletons``.
        suffix: end of the directory's name.

    Raises:
        ParameterError: the volume is not from a precomputed layer, or that cannot be written, and no output is given.
    """
    source = volume.stored
    mip = 0 if source is None else source.mip
    if output is not None:
        url = kvstore.normalise(os.fspath(output))
        kvstore.refuse_http(url)
        return layer_above(url), mip, url
    if source is None or not source.extensible:
        raise ParameterError(
            "the volume is not opened from a precomputed layer that can be written; give output=, a directory for the"
            f" {kind}"
        )
    name = "mesh" if kind == "meshes" else kind
    return source.url, mip, kvstore.join(source.url, f"{name}_mip_{mip}{suffix}")


def fits_float32(box: BoundingBox, *, parts: int = 32) -> bool:
    """Return whether float32, as files have vertices, tells apart so many places within each voxel of a volume."""
    return max(map(abs, (*box.start, *box.stop))) * parts <= 2**23


def object_labels(labels: Sequence[int]) -> tuple[int, ...]:
    """Return labels of objects in order, each once.

    Raises:
        ParameterError: one is background, negative or beyond 64 bits.
    """
    wrong = [label for label in labels if not 0 < label < 2**64]
    if wrong:
        raise ParameterError(f"{wrong[0]} is no label of an object; labels are 1 to 2^64 - 1")
    return tuple(sorted({int(label) for label in labels}))


def report_absent(
    report: Report, pieces: Pieces, *, labels: Sequence[int] | None, exclude: Sequence[int], kind: str
) -> None:
    """Warn, also in the report, of labels that were asked for and have no object: at most ten by name.

    Args:
        report: gets them.
        pieces: has the labels that have pieces of an object.
        labels: what was asked for; None for all there are.
        exclude: and what was left out of it.
        kind: meshes or skeletons.
    """
    wanted = set(labels or ()) - set(exclude)
    if not wanted or pieces.label_count == len(wanted) < 2**16:  # up to which they are counted exactly
        return
    absent = sorted(wanted.difference(*(dict(pieces.labels_of(n)) for n in range(pieces.buckets))))
    if absent:
        more = [f"and {len(absent) - _NAMED:,} more"] if len(absent) > _NAMED else []
        named = [*map(str, absent[:_NAMED]), *more]
        report.results[f"labels_without_{kind}"] = named
        count = f"{len(absent):,} of {len(wanted):,} labels that were asked for"
        warn((f"{count} are not in the volume, or have fewer voxels than dust: {', '.join(named)}",))


def check_joined(counts: dict[str, int], directory: str, *, kind: str, made: str) -> None:
    """Raise unless every piece of an object was joined with the others of its label.

    Args:
        counts: of the report.
        directory: URL of the job's directory.
        kind: meshes or skeletons.
        made: what became of pieces before they were joined, e.g. "traced".

    Raises:
        JobError: some were lost on the way.
    """
    pieces, joined = counts.get("fragments", 0), counts.get("joined_fragments", 0)
    if pieces != joined:
        raise JobError(
            f"{pieces:,} pieces of {kind} were {made} and {joined:,} joined; the scratch data in {directory} are"
            " damaged: delete the job's directory and run it again"
        )


def check_own_directory(url: str, job: str, *, kind: str, option: str) -> None:
    """Raise unless a directory of objects can be written, and is new or of a job.

    Args:
        url: the directory.
        job: URL of the job's directory.
        kind: meshes or skeletons.
        option: of ``daskflow remove`` for them.

    Raises:
        MetadataMismatchError: there are objects of another job.
        StoreAccessError: the location refuses.
    """
    if kvstore.exists(f"{url}/info") and not kvstore.exists(f"{job}/job.json"):
        raise MetadataMismatchError(
            f"{kvstore.redact(url)} holds {kind} that this job has not made; daskflow remove LAYER {option} removes"
            " those of a layer; or write to another directory, with output"
        )
    kvstore.check_writable(url)
