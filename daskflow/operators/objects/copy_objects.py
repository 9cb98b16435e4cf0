"""Meshes and skeletons from one layer to another."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daskflow.errors import MetadataMismatchError, MissingChunkError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox, Zyx, as_zyx
from daskflow.jobs import Job, Report
from daskflow.jobs.fingerprint import token
from daskflow.jobs.report import Finish
from daskflow.operators import options
from daskflow.operators.objects.mesh.multires import Detail, multires
from daskflow.scratch.records import read_record, required_records, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.files import read_file, sized_names, write_file, writing
from daskflow.stores.objects.layer_objects import (
    Meshes,
    Skeletons,
    load_object_info,
    made_from,
    name_objects,
    object_directory,
)
from daskflow.stores.objects.mesh_files import multires_info
from daskflow.stores.objects.shards import Object, Sharding, object_sharding, shard_numbers, write_shard
from daskflow.stores.objects.skeleton_files import SKELETONS
from daskflow.stores.precomputed_info import named_objects
from daskflow.volume import BlockResult, Stage, Task, numbered, operator
from daskflow.volume.stage import Output, Scope

Key = Literal["mesh", "skeletons"]
Listed = dict[Key, tuple[list[str], list[int]]]  # files to be copied as they are, and labels to be put into shards

_SHARES = 64
_PIECE = 2**26  # bytes of a file that are in memory at once
_INTERMEDIATE = (".frags", ".labels")  # what igneous leaves behind between its steps


@operator()
def copy_objects(
    source: str,
    output: options.Destination,
    *,
    mesh: bool = True,
    skeletons: bool = True,
    directory: str | None = None,
    format: Literal["same", "sharded"] = "same",  # noqa: A002
    max_labels_per_shard: options.MaxLabelsPerShard = 1000,
    lods: options.Lods = 2,
    min_chunk: options.MinChunk = (256, 256, 256),
    max_error: options.MaxError = 40.0,
) -> Job:
    """Copy the meshes and skeletons of a precomputed layer to another layer, as they are or into shards.

    Files are copied byte by byte, with their spatial index, but without what igneous leaves behind between its steps.
    The other layer's info names them once all are there.

    Args:
        source: path or URL of a precomputed layer.
        output: path or URL of another, which must be there when this ends.
        mesh: copy the meshes, if there are any.
        skeletons: copy the skeletons, if there are any.
        directory: name of the directory in the source that is copied, to one of the same name; by default those that
            its info names.
        format: same as in the source; or sharded to put what has files for each label into shards, where legacy meshes
            become multi-resolution ones.
        lods: levels of detail that legacy meshes get in shards beside the finest, if they are large enough.
        max_error: nm that their finest level may differ by, about; each coarser one twice as much.

    Returns:
        The job; ``run().results["copied"]`` has the numbers of files and of objects that were put into shards.

    Raises:
        ParameterError: nothing to copy, or a layer onto itself.
        StoreNotFoundError: when it is run, if the source has neither, or the destination is not a layer.
        MetadataMismatchError: when it is run, if the destination has other objects in that directory.
    """
    source, destination = kvstore.normalise(source), kvstore.normalise(output)
    if source == destination:
        raise ParameterError(f"cannot copy objects of {kvstore.redact(source)} onto themselves")
    wanted: list[tuple[Key, bool]] = [("mesh", mesh), ("skeletons", skeletons)]
    keys = tuple(key for key, chosen in wanted if chosen)
    if not keys:
        raise ParameterError("neither meshes nor skeletons are to be copied")
    object_sharding(1, max_labels_per_shard=max_labels_per_shard)
    if lods < 0 or max_error < 0:
        raise ParameterError(f"lods {lods} and max_error {max_error} must not be below 0")
    most = max_labels_per_shard if format == "sharded" else None
    chunk = as_zyx(min_chunk, name="min_chunk")
    transfer = Transfer(source, destination, keys, most, lods, chunk, max_error, directory)
    scope = Scope("objects", (source, destination))
    listing = Stage("list-objects", numbered(1), ListObjects(transfer, scope), numbered=True)
    return Job(
        (listing, Stage("copy-objects", numbered(_SHARES), CopyShare(transfer, scope), numbered=True)),
        f"{destination}.objects-{token([source, keys, *([] if directory is None else [directory])])[:8]}.daskflow/",
        name="copy objects",
        finish=(NameObjects(transfer, scope),),
        makes=tuple(Output(destination, key, layer=destination) for key in keys),
    )


@dataclass(frozen=True)
class Transfer:
    """What is copied, from where to where, and how it changes on the way.

    Attributes:
        source: URL of a layer; the destination is that of another.
        keys: of the info: mesh, skeletons; those that the source has are copied.
        max_labels_per_shard: about how many labels a shard has that had files of their own; None keeps files.
        lods: levels of detail, beside the finest, of legacy meshes that are put into shards; see `Detail` for these.
        directory: in the source, of the one or the other, if that is not what its info names.
    """

    source: str
    destination: str
    keys: tuple[Key, ...]
    max_labels_per_shard: int | None
    lods: int
    min_chunk: Zyx
    max_error: float
    directory: str | None = None

    def present(self) -> list[Key]:
        """Return those of the keys that the source's info has.

        Raises:
            StoreNotFoundError: it has none of them.
        """
        if self.directory is None:
            there = named_objects(self.source)
        else:
            kind = load_object_info(kvstore.join(self.source, self.directory)).get("@type")
            there = {"skeletons" if kind == SKELETONS else "mesh": self.directory}
        found = [key for key in self.keys if key in there]
        if not found:
            raise StoreNotFoundError(f"{kvstore.redact(self.source)} has no {' or '.join(self.keys)} to copy")
        return found

    def objects(self, key: Key) -> Meshes | Skeletons:
        """Return what reads the source's meshes or skeletons."""
        return (Meshes if key == "mesh" else Skeletons)(self.source, directory=self.directory)

    def target(self, key: Key) -> str:
        """Return the URL of the directory at the destination, called as at the source."""
        name = object_directory(self.source, key, self.directory).removeprefix(f"{self.source}/")
        return kvstore.join(self.destination, name)

    def packs(self, objects: Meshes | Skeletons) -> bool:
        """Return whether objects that have files of their own are put into shards."""
        return self.max_labels_per_shard is not None and objects.shards is None

    def spec(self, key: Key, labels: int) -> Sharding:
        """Return the ``sharding`` JSON for a number of labels."""
        encoding = "raw" if key == "mesh" else "gzip"
        return object_sharding(labels, data_encoding=encoding, max_labels_per_shard=self.max_labels_per_shard)

    def voxel_size(self, objects: Meshes) -> tuple[float, float, float]:
        """Return the voxel size (nm, zyx) of the level that legacy meshes were made of.

        Raises:
            ParameterError: the source has no such level.
        """
        level = made_from(self.source, objects.info)
        if level is None:
            mip = objects.info["mip"]
            raise ParameterError(f"meshes of mip {mip} in {kvstore.redact(self.source)}, which has fewer levels")
        return level.spacing

    def info(self, key: Key, labels: int) -> dict[str, Any]:
        """Return the info of the directory at the destination."""
        objects = self.objects(key)
        if not self.packs(objects):
            return objects.info
        sharding = self.spec(key, labels)
        if isinstance(objects, Skeletons) or objects.multires:
            return {**objects.info, "sharding": sharding}
        mip = int(objects.info.get("mip", 0))
        made = multires_info(voxel_size=self.voxel_size(objects)[::-1], bits=16, mip=mip, sharding=sharding)
        return {**objects.info, **made}


@dataclass(frozen=True)
class _Step(Task):
    transfer: Transfer
    scope: Scope

    def describe(self) -> dict[str, Any]:
        return {"does": type(self).__name__, **dataclasses.asdict(self.transfer)}


@dataclass(frozen=True)
class ListObjects(_Step):
    """List what is copied, and share it out; the one block is all of it."""

    def read(self, box: BoundingBox) -> Listed:  # noqa: ARG002
        found: Listed = {}
        for key in self.transfer.present():
            objects = self.transfer.objects(key)
            packs = self.transfer.packs(objects)
            names = [name for name, _ in sized_names(objects.directory) if _copied(name, objects, packs=packs)]
            found[key] = sorted(names), objects.labels().tolist() if packs else []
        return found

    def compute(self, box: BoundingBox, inputs: Listed) -> dict[Key, list[dict[str, Any]]]:  # noqa: ARG002
        return {key: list(self._shares(key, names, labels)) for key, (names, labels) in inputs.items()}

    def _shares(self, key: Key, names: list[str], labels: list[int]) -> Iterator[dict[str, Any]]:
        ordered, numbers = np.array(labels, np.uint64), np.zeros(0, np.uint64)
        if labels:
            numbers = shard_numbers(ordered, self.transfer.spec(key, len(labels)))
            order = np.lexsort((ordered, numbers))
            ordered, numbers = ordered[order], numbers[order]
        for share in range(_SHARES):
            own = numbers % np.uint64(_SHARES) == share
            yield {
                "names": np.array(names[share::_SHARES], np.str_),
                "labels": ordered[own],
                "shards": numbers[own],
                "total": np.array([len(labels), len(names)]),
            }

    def write(self, box: BoundingBox, outputs: dict[Key, list[dict[str, Any]]]) -> BlockResult:  # noqa: ARG002
        for key, shares in outputs.items():
            for share, record in enumerate(shares):
                write_record(self.scope.url, key, share, record)
        return BlockResult()

    def check(self) -> None:
        for key in self.transfer.present():
            objects = self.transfer.objects(key)
            target = self.transfer.target(key)
            there = load_object_info(target)
            if there and not self.transfer.packs(objects) and there != objects.info:
                raise MetadataMismatchError(
                    f"{kvstore.redact(target)} holds other {key} already; remove those first:"
                    f" daskflow remove {kvstore.redact(self.transfer.destination)} --{key}"
                )
            kvstore.check_writable(target)


@dataclass(frozen=True)
class CopyShare(_Step):
    """Copy one share of the files, and write one share of the shards."""

    def read(self, box: BoundingBox) -> dict[Key, dict[str, Any]]:
        return {key: required_records(self.scope.url, key, [box.start[0]])[0] for key in self.transfer.present()}

    def write(self, box: BoundingBox, outputs: dict[Key, dict[str, Any]]) -> BlockResult:  # noqa: ARG002
        files = packed = 0
        for key, record in outputs.items():
            objects, target = self.transfer.objects(key), self.transfer.target(key)
            for name in record["names"].tolist():
                _copy_file(objects.directory, target, name)
                files += 1
            for number in np.unique(record["shards"]).tolist():
                labels = record["labels"][record["shards"] == number].tolist()
                spec = self.transfer.spec(key, int(record["total"][0]))
                found = ((label, self._object(objects, label)) for label in labels)
                packed += write_shard(target, number, spec, ((label, one) for label, one in found if one is not None))
        return BlockResult(empty=not files and not packed, counts={"files": files, "objects_in_shards": packed})

    def _object(self, objects: Meshes | Skeletons, label: int) -> Object | None:
        if isinstance(objects, Skeletons):
            return objects.encoded(label)
        if objects.multires:
            manifest = read_file(objects.directory, f"{label}.index")
            fragments = read_file(objects.directory, str(label))
            return None if manifest is None or fragments is None else (fragments, manifest)
        mesh = objects.read(label)
        if mesh is None or not len(mesh.faces):
            return None
        size = self.transfer.voxel_size(objects)
        detail = Detail(self.transfer.lods, self.transfer.min_chunk, 16, self.transfer.max_error, size)
        return multires(mesh.vertices.astype(np.float64) / size[::-1], mesh.faces, detail)


@dataclass(frozen=True)
class NameObjects(Finish):
    """Write the info of the copied directories, and name them in the info of the layer, once all are there."""

    transfer: Transfer
    scope: Scope
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:  # noqa: ARG002
        """Do so, and say how many there are."""
        named: dict[str, str] = {}
        copied: dict[str, int] = {}
        for key in self.transfer.present():
            record = read_record(self.scope.url, key, 0)
            labels, files = (0, 0) if record is None else record["total"].tolist()
            target = self.transfer.target(key)
            write_file(target, "info", json.dumps(self.transfer.info(key, labels)).encode())
            named[key] = target.removeprefix(f"{self.transfer.destination}/")
            copied |= {f"{key}_files": files, f"{key}_put_into_shards": labels}
        name_objects(self.transfer.destination, **named)
        report.results["copied"] = copied


def _copied(name: str, objects: Meshes | Skeletons, *, packs: bool) -> bool:
    """Return whether a file is copied as it is: no leftovers, no info, and nothing that goes into shards."""
    stem = _plain(name)
    if stem == "info" or stem.endswith(_INTERMEDIATE):
        return False
    if stem.endswith(".spatial"):
        return True
    if packs:
        return False
    if objects.shards is not None:
        return stem.endswith(".shard")
    if isinstance(objects, Skeletons):
        return stem.isdecimal()
    return stem.removesuffix(".index").isdecimal() if objects.multires else True


def _copy_file(source: str, target: str, name: str) -> None:
    """Copy a file byte by byte; between a disk and a bucket, where CloudVolume's names are not, uncompressed."""
    path, local = kvstore.local_path(kvstore.join(source, name)), kvstore.local_path(target) is not None
    if path is not None and local:
        with path.open("rb") as file, writing(kvstore.join(target, name)) as copy:
            shutil.copyfileobj(file, copy, _PIECE)
        return
    plain = name if path is None else _plain(name)
    data = read_file(source, plain) if path is not None or local else kvstore.read_bytes(kvstore.join(source, name))
    if data is None:
        raise MissingChunkError(f"{kvstore.redact(source)}/{name} has gone while it was copied")
    write_file(target, plain, data)


def _plain(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".br")
