"""The pass that joins the surfaces of each label and writes its mesh."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from daskflow.errors import JobError
from daskflow.geometry import BoundingBox
from daskflow.jobs.fragments import Fragment
from daskflow.operators.meshing.forging import fragment_name
from daskflow.operators.meshing.multires import multires
from daskflow.operators.meshing.plan import Meshing
from daskflow.operators.meshing.storing import unpack_surface
from daskflow.operators.meshing.surface import Surface, positions
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import encode_manifest, manifest_name
from daskflow.stores.objects.shards import write_shard
from daskflow.volume import BlockResult, Estimate

Labels = Iterable[tuple[int, list[Fragment]]]


@dataclass(frozen=True)
class WriteMeshes:
    """Write the meshes of the labels in a bucket.

    Attributes:
        meshing: what is done.
        directory: URL of the scratch directory, once bound.
    """

    meshing: Meshing
    directory: str = ""

    def read(self, box: BoundingBox) -> None:
        """Nothing yet: pieces are read label by label, so that those of one alone are in memory."""

    def compute(self, box: BoundingBox, inputs: None) -> None:
        """Nothing yet, likewise."""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        bucket, counts, target = box.start[0], Counter[str](), self.meshing.target
        shuffle = self.meshing.shuffle
        if target.format == "legacy":
            self._write_manifests(shuffle.labels_of(self.directory, bucket), counts)
        elif target.format == "multires":
            for label, (fragments, manifest) in self._meshes(shuffle.labels_of(self.directory, bucket), counts):
                write_file(target.url, str(label), fragments)
                write_file(target.url, f"{label}.index", manifest)
        else:
            sharding = shuffle.shards(self.directory)
            for number, labels in shuffle.shards_of(self.directory, bucket):
                write_shard(target.url, number, sharding, self._meshes(labels, counts))
        return BlockResult(empty=not counts, counts=dict(counts))

    def _write_manifests(self, labels: Labels, counts: Counter[str]) -> None:
        target, grid = self.meshing.target, self.meshing.grid
        for label, fragments in labels:
            names = [fragment_name(label, grid[fragment.block]) for fragment in fragments]
            write_file(target.url, manifest_name(label), encode_manifest(names), compression=target.compression)
            counts["meshes"] += 1
            counts["joined_fragments"] += len(fragments)

    def _meshes(self, labels: Labels, counts: Counter[str]) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
        """Yield the fragments and the manifest of each label."""
        origin = self.meshing.grid.box.start
        for label, fragments in labels:
            data = self.meshing.shuffle.read_all(self.directory, fragments)
            surface = Surface.joined([unpack_surface(one, self.directory) for one in data])
            del data
            vertices = positions(surface.vertices, origin, (1.0, 1.0, 1.0))
            mesh = multires(vertices, surface.faces, self.meshing.detail)
            counts["meshes"] += 1
            counts["joined_fragments"] += len(fragments)
            counts["mesh_bytes"] += sum(map(len, mesh))
            yield label, mesh

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002 (labels are not known before)
        return Estimate(memory=self.meshing.memory)

    def check(self) -> None:
        """Nothing can fail that forging the pieces has not met."""

    def describe(self) -> dict[str, Any]:
        return self.meshing.describe_levels()

    def bind(self, directory: str) -> WriteMeshes:
        return dataclasses.replace(self, meshing=self.meshing.bind(directory), directory=directory)


def check_counts(counts: dict[str, int], directory: str) -> None:
    """Raise unless every piece that was made is in a mesh.

    Raises:
        JobError: some were lost on the way.
    """
    made, joined = counts.get("fragments", 0), counts.get("joined_fragments", 0)
    if made != joined:
        raise JobError(
            f"{made:,} pieces of meshes were made and {joined:,} joined; the scratch data in {directory} are damaged:"
            " delete the job's directory and run it again"
        )
