"""Correcting what a stored layer says of itself, in place, and back again: kind, voxel size, offset, and its objects.

Only metadata change. What they were is kept in the provenance of the layer, from which `undo` puts it back.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from daskflow.errors import MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox, LayerType, VolumeSpec, Zyx, as_voxel_size, as_zyx
from daskflow.geometry.spec import VoxelSize
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.lock import Lease
from daskflow.jobs.outputs import jobs_of, leased
from daskflow.jobs.shapes import fits, from_json
from daskflow.layers.provenance import circumstances
from daskflow.stores import Store, kvstore
from daskflow.stores.opening import open_store
from daskflow.stores.states import add_note, notes_at
from daskflow.volume.stage import Output

_JOB, _UNDO = "set", "set --undo"
_FILES = {"info", "zarr.json", ".zattrs", ".zmetadata"}

Files = dict[str, bytes | None]


@dataclass(frozen=True)
class Correction:
    """What a layer shall say; None leaves it as it is.

    Attributes:
        layer_type: the kind.
        voxel_size: of the finest level (nm, zyx); coarser ones keep their factors.
        voxel_offset: first voxel of the finest level (zyx); coarser ones begin where downsampling would put them.
        mesh: which of the directories of meshes in the layer is that of its objects.
        skeletons: and which one of skeletons.
    """

    layer_type: LayerType | None = None
    voxel_size: VoxelSize | None = None
    voxel_offset: Zyx | None = None
    mesh: str | None = None
    skeletons: str | None = None

    def __post_init__(self) -> None:
        if self.voxel_size is not None:
            object.__setattr__(self, "voxel_size", as_voxel_size(self.voxel_size))
        if self.voxel_offset is not None:
            object.__setattr__(self, "voxel_offset", as_zyx(self.voxel_offset, name="voxel_offset"))
        if set(vars(self).values()) == {None}:
            raise ParameterError(
                "nothing is set: say --layer-type, --voxel-size, --voxel-offset, --mesh, --skeletons or --undo"
            )

    @property
    def objects(self) -> dict[str, str]:
        """The directories of objects that are chosen, by kind."""
        return {k: v.rstrip("/") for k, v in (("mesh", self.mesh), ("skeletons", self.skeletons)) if v is not None}

    def of(self, levels: tuple[VolumeSpec, ...]) -> list[VolumeSpec]:
        """Return what levels are with it."""
        return [self._level(spec, spec.factor(levels[0])) for spec in levels]

    def _level(self, spec: VolumeSpec, factor: Zyx) -> VolumeSpec:
        kind = self.layer_type or spec.layer_type
        if kind == "segmentation" and (spec.dtype.kind not in "bui" or spec.channels not in (None, 1)):
            channels = f" in {spec.channels} channels" if spec.channels not in (None, 1) else ""
            raise ParameterError(f"a segmentation is of integers in one channel; the layer is {spec.dtype}{channels}")
        size, box = spec.voxel_size, spec.box
        if self.voxel_size is not None:
            z, y, x = (s * f for s, f in zip(self.voxel_size, factor, strict=True))
            size = (z, y, x)
        if self.voxel_offset is not None:
            start = as_zyx([a // f for a, f in zip(self.voxel_offset, factor, strict=True)])
            box = BoundingBox.from_size(start, box.shape)
        return spec.replace(layer_type=kind, voxel_size=size, box=box, chunk_origin=None)


def correct(url: str, correction: Correction) -> list[str]:
    """Write into the metadata of a layer what it shall say, at every level; return what that changed, a line each.

    Raises:
        ParameterError: the format keeps no such metadata, or cannot say it without a loss.
        LockedJobError: a job that writes the layer is running.
    """
    store = open_store(url)
    kvstore.refuse_http(store.url)
    with _leased(store.url):
        specs = correction.of(store.mips)
        _check_objects(store, correction.objects)
        after = store.corrected(specs, moved=correction.voxel_offset is not None, objects=correction.objects)
        before: Files = {name: kvstore.read_bytes(name) for name in after}
        changed = {name: data for name, data in after.items() if data != before[name]}
        lines = _differences(store, specs, correction.objects)
        if not lines:
            return ["nothing to change"]
        _record(store, _JOB, {"run": uuid.uuid4().hex, "changes": lines, **_kept(before, changed)})
        for name, data in changed.items():
            kvstore.write_bytes(name, data)
    return [*lines, *_stale(store, correction)]


def undo(url: str) -> list[str]:
    """Put back what the last correction of a layer changed; return what it was, a line each.

    Raises:
        ParameterError: no correction is left to be undone.
        MetadataMismatchError: the metadata were changed since.
    """
    store = open_store(url)
    kvstore.refuse_http(store.url)
    with _leased(store.url):
        records = notes_at(store.provenance_url(store.url))
        undone = [record.get("undoes") for record in records]
        made = [from_json(_Done, record) for record in records if record.get("job") == _JOB and _whole(record)]
        left = [one for one in made if one.run not in undone]
        if not left:
            raise ParameterError(f"the provenance of {kvstore.redact(store.url)} has no correction to undo")
        last = left[-1]
        for name, state in last.after.items():
            if _digest(kvstore.read_bytes(kvstore.join(store.url, name))) != state:
                raise MetadataMismatchError(
                    f"{name} of {kvstore.redact(store.url)} has changed since; set again what it was:"
                    f" {'; '.join(last.changes)}"
                )
        for name, text in last.before.items():
            target = kvstore.join(store.url, name)
            kvstore.delete(target) if text is None else kvstore.write_bytes(target, text.encode())
        _record(store, _UNDO, {"run": uuid.uuid4().hex, "undoes": last.run})
    return [f"undone: {line}" for line in last.changes]


@contextmanager
def _leased(url: str) -> Iterator[None]:
    """Hold the leases of a layer and of all jobs that write it."""
    with ExitStack() as leases:
        leases.enter_context(leased(JobDirectory(f"{url}.set.daskflow"), [Output(url, "layer").placed()]))
        for job in jobs_of(url):
            leases.enter_context(Lease(job.lock))
        yield


@dataclass(frozen=True)
class _Done:
    """What is noted of a correction, as far as undoing reads it; files by their names."""

    run: str
    changes: list[str]
    before: dict[str, str | None]
    after: dict[str, str | None]


def _whole(record: dict[str, Any]) -> bool:
    return fits(record, _Done) and {*record["before"], *record["after"]} <= _FILES


def _kept(before: Files, changed: dict[str, bytes]) -> dict[str, Any]:
    """Return what undoing needs: the text of files before, and how to check that they were not changed since."""
    names = {url: url.rpartition("/")[2] for url in changed}
    texts = {names[url]: None if (data := before[url]) is None else data.decode() for url in changed}
    return {"before": texts, "after": {names[url]: _digest(data) for url, data in changed.items()}}


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _record(store: Store, job: str, values: dict[str, Any]) -> None:
    add_note(store.provenance_url(store.url), {**circumstances(), "job": job, "mip": None, **values})


def _check_objects(store: Store, chosen: Mapping[str, str]) -> None:
    """Raise unless the layer has the directories of objects that are chosen."""
    for kind, name in chosen.items():
        there = [directory for known, directory in store.object_sets() if known == kind]
        if name not in there:
            has = f"it has {', '.join(there)}" if there else f"it has no {kind}"
            raise ParameterError(f"{name} is not a directory of {kind} in {kvstore.redact(store.url)}; {has}")


def _differences(store: Store, after: list[VolumeSpec], objects: Mapping[str, str]) -> list[str]:
    """Return what is said of the finest level and of objects, a line for each difference."""
    old, new, named = store.mips[0], after[0], store.objects()
    pairs: dict[str, tuple[object, object]] = {
        "layer type": (old.layer_type or "unknown", new.layer_type or "unknown"),
        "voxel size (zyx)": (old.size_text, new.size_text),
        "voxel offset (zyx)": (old.box.start, new.box.start),
        **{kind: (named.get(kind, "none"), name) for kind, name in objects.items()},
    }
    return [f"{name}: {was} -> {becomes}" for name, (was, becomes) in pairs.items() if was != becomes]


def _stale(store: Store, correction: Correction) -> list[str]:
    """Return a warning for objects that were made of the layer as it was."""
    if correction.voxel_size is None and correction.voxel_offset is None:
        return []
    made = list(store.objects())
    return [f"its {' and '.join(made)} lie where the layer was: recreate them"] if made else []
