"""The passes that join the surfaces of each label, large ones part by part, and write its mesh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from daskflow.geometry import BoundingBox
from daskflow.operators.objects.mesh.large import (
    Division,
    clipped,
    divide,
    fragments_of,
    join_parts,
    make_part,
    most_bytes,
    parents,
)
from daskflow.operators.objects.mesh.multires import Encoded, Position, manifest_of, multires
from daskflow.operators.objects.mesh.packed import unpack_surface
from daskflow.operators.objects.mesh.plan import Meshing
from daskflow.operators.objects.mesh.surface import Faces, Points, Surface
from daskflow.operators.objects.mesh.surfaces import fragment_name
from daskflow.scratch.pieces import Fragment
from daskflow.scratch.records import required_records, write_record
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import encode_manifest, manifest_name
from daskflow.stores.objects.shards import write_shard
from daskflow.volume import BlockResult, Estimate, Task

Labels = Iterable[tuple[int, list[Fragment]]]


@dataclass(frozen=True)
class CutLargeMeshes(Task):
    """Make parts of the labels of a bucket that are too large to be made at once.

    Attributes:
        meshing: what is done.
    """

    meshing: Meshing

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        meshing, (bucket, turn, _) = self.meshing, box.start
        made = 0
        for label, fragments in meshing.pieces.labels_of(bucket):
            division = divide(fragments, meshing.detail, meshing.memory, meshing.grid.block)
            if division is None:
                continue
            for number in range(turn, len(division.parts), meshing.turns):
                position, members = division.parts[number]
                surface = self._surface(members, position, division)
                record = make_part(surface.vertices, surface.faces, position, division, meshing.detail)
                write_record(meshing.pieces.scope.url, meshing.parts_of(label), number, record)
                made += 1
        return BlockResult(empty=not made, counts={"mesh_parts": made} if made else {})

    def _surface(self, fragments: Sequence[Fragment], position: Position, division: Division) -> Surface:
        """Return what pieces, read one after another, have in a part; vertices in voxels (xyz)."""
        inside = []
        for fragment in fragments:
            data = self.meshing.pieces.read_all([fragment])
            piece = joined(self.meshing, data)
            inside.append(Surface(*clipped(*piece, position, division)))
        return Surface.joined(inside)

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002 (labels are not known before)
        return Estimate(memory=self.meshing.memory, option="--memory")

    def describe(self) -> dict[str, Any]:
        return {"cuts": "large meshes", **self.meshing.describe_levels()}


def joined(meshing: Meshing, pieces: Sequence[bytes]) -> tuple[Points, Faces]:
    """Return the pieces of a label as one surface: vertices in voxels (xyz), and triangles."""
    surface = Surface.joined([unpack_surface(one, meshing.pieces.scope.url) for one in pieces])
    return meshing.frame.voxels(surface.vertices), surface.faces


@dataclass(frozen=True)
class WriteMeshes(Task):
    """Write the meshes of the labels in a bucket.

    Attributes:
        meshing: what is done.
    """

    meshing: Meshing

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        bucket, counts, target = box.start[0], Counter[str](), self.meshing.target
        pieces = self.meshing.pieces
        if target.format == "legacy":
            self._write_manifests(pieces.labels_of(bucket), counts)
        elif target.format == "multires":
            for label, (fragments, manifest) in self._meshes(pieces.labels_of(bucket), counts):
                write_file(target.url, str(label), b"".join(fragments))
                write_file(target.url, f"{label}.index", manifest)
        else:
            sharding = pieces.shards()
            assert sharding is not None
            for number, labels in pieces.shards_of(bucket):
                write_shard(target.url, number, sharding, self._meshes(labels, counts))
        return BlockResult(empty=not counts, counts=dict(counts))

    def _write_manifests(self, labels: Labels, counts: Counter[str]) -> None:
        target, grid = self.meshing.target, self.meshing.grid
        for label, fragments in labels:
            names = [fragment_name(label, grid[fragment.block]) for fragment in fragments]
            write_file(target.url, manifest_name(label), encode_manifest(names), compression=target.compression)
            counts["meshes"] += 1
            counts["joined_fragments"] += len(fragments)

    def _meshes(self, labels: Labels, counts: Counter[str]) -> Iterator[tuple[int, tuple[list[bytes], bytes]]]:
        """Yield the fragments and the manifest of each label."""
        meshing = self.meshing
        for label, fragments, pieces in meshing.pieces.read_labels(labels, most_bytes(meshing.memory)):
            division = divide(fragments, meshing.detail, meshing.memory, meshing.grid.block)
            if division is None:
                whole, manifest = multires(*joined(meshing, pieces), meshing.detail)
                data = [whole]
            else:
                data, manifest = self._divided(label, division)
                counts["large_meshes"] += 1
            counts["meshes"] += 1
            counts["joined_fragments"] += len(fragments)
            counts["mesh_bytes"] += sum(map(len, data)) + len(manifest)
            yield label, (data, manifest)

    def _divided(self, label: int, division: Division) -> tuple[list[bytes], bytes]:
        """Return the fragments and the manifest of a large label, of which at most eight cells are joined at once."""
        name, directory = self.meshing.parts_of(label), self.meshing.pieces.scope.url
        cells, sizes = [position for position, _ in division.parts], list[int]()
        levels: list[Encoded] = [[] for _ in range(division.inner + 1)]
        for number in range(len(cells)):
            (record,) = required_records(directory, name, [number])
            sizes.append(len(record["faces"]))
            for lod, level in enumerate(levels):
                level += fragments_of(record, lod)
        for lod in range(division.inner + 1, division.levels):
            groups = parents(cells)
            if max(sum(sizes[number] for number in members) for _, members in groups) > division.most:
                break
            levels.append([])
            below, name, sizes = name, f"{self.meshing.parts_of(label)}-{lod}", []
            for number, (position, members) in enumerate(groups):
                records = required_records(directory, below, members)
                record = join_parts(records, position, lod, division, self.meshing.detail)
                write_record(directory, name, number, record)
                levels[lod] += fragments_of(record, lod)
                sizes.append(len(record["faces"]))
            cells = [position for position, _ in groups]
        fragments = [data for level in levels for _, data in level]
        return fragments, manifest_of(division.cells, levels).encode()

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002 (labels are not known before)
        return Estimate(memory=self.meshing.memory, option="--memory")

    def describe(self) -> dict[str, Any]:
        return {"writes": "meshes", **self.meshing.describe_levels()}
