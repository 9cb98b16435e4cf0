"""The passes of a meshing: surfaces of every block, meshes of every label, and the files by which viewers find them."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import optional_module
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs import Report
from daskflow.jobs.consumer import Consumer
from daskflow.jobs.report import Finish
from daskflow.operators.objects._label_objects import (
    announce,
    check_joined,
    check_own_directory,
    report_absent,
    still_there,
)
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
from daskflow.operators.objects.mesh.plan import Frame, Meshing
from daskflow.operators.objects.mesh.simplify import finest_error, simplify
from daskflow.operators.objects.mesh.surface import (
    Faces,
    Points,
    Seen,
    Surface,
    extent,
    filled_labels,
    pack_surface,
    select,
    surfaces,
    unpack_surface,
)
from daskflow.operators.segmentation.voxel_counts import count_labels
from daskflow.scratch.pieces import Fragment
from daskflow.scratch.records import required_records, write_record
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import (
    SURFACE_FILES,
    Json,
    Mesh,
    encode_fragment,
    encode_manifest,
    encode_surface,
    legacy_info,
    manifest_name,
    multires_info,
)
from daskflow.stores.objects.shards import write_shard
from daskflow.volume import BlockResult, Estimate, Task

Array = npt.NDArray[Any]
Outputs = dict[int, Surface]
Labels = Iterable[tuple[int, list[Fragment]]]

_SECONDS = 6e-7  # per voxel of real neurites, of which both libraries keep Python's lock
BLOCK_BYTES = 50  # per voxel: labels as numbers of 4 bytes, twice, and the triangles of a dense block


def simplified(
    labels: Array, seen: Seen, volume: BoundingBox, frame: Frame, max_error: float
) -> Iterator[tuple[int, Surface]]:
    """Yield the surface of each label but 0 of what was read of a volume, simplified by at most `max_error` nm."""
    if not labels.any():
        return
    error = finest_error(max_error, frame.voxel_size)
    for label, surface in surfaces(labels, seen.corner(volume.start), seen.around):
        if len(surface.faces):
            yield label, Surface(*simplify(surface.vertices, surface.faces, error, frame.voxel_size, unit=0.5))


def check_packages(*names: str) -> None:
    """Raise unless the packages that meshing needs are installed."""
    for name in names:
        optional_module(name, package=name, extra="mesh")


@dataclass(frozen=True)
class ExtractSurfaces(Consumer):
    """Make the surfaces of the labels of a block, and simplify them; `job` is the URL of its directory, once bound."""

    meshing: Meshing
    job: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.meshing.grid

    def needs(self, box: BoundingBox) -> BoundingBox:
        return self._seen(box).read

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Outputs:
        seen = self._seen(box)
        labels = arrays[0].reshape(seen.read.shape)
        unsigned = labels if labels.dtype.kind == "u" else labels.view(f"u{labels.dtype.itemsize}")
        labels = self._chosen(unsigned, box.slices(seen.read))
        holes = self.meshing.selection.fill_holes
        passes = filled_labels(labels, holes) if holes else (labels,)
        meshing = self.meshing
        made = (simplified(one, seen, meshing.grid.box, meshing.frame, meshing.detail.max_error) for one in passes)
        return dict(itertools.chain.from_iterable(made))

    def _chosen(self, labels: Array, inside: tuple[slice, slice, slice]) -> Array:
        """Return the labels (zyx) that are meshed, background in place of the others.

        `inside` is the block itself, without the voxels that it shares with the next ones.
        """
        selection = self.meshing.selection
        labels = select(labels, selection.labels, selection.exclude)
        if selection.dust <= 1:
            return labels
        names, sizes = count_labels(labels[inside] if selection.within == "block" else labels)
        if selection.within == "block":
            beyond = np.setdiff1d(count_labels(labels)[0], names)
            names, sizes = np.concatenate([names, beyond]), np.concatenate([sizes, np.zeros(len(beyond), np.int64)])
        small = names[(sizes < selection.dust) & (names != 0)]
        if self.meshing.counting is not None:
            small = small[self.meshing.counting.of(small) < selection.dust]
        return select(labels, None, small.tolist())

    def write(self, box: BoundingBox, outputs: Outputs) -> BlockResult:
        meshing, target = self.meshing, self.meshing.target
        (number,) = meshing.grid.touching(box)
        frame = meshing.frame
        corners = {label: frame.near_nm(np.stack(extent(surface.vertices))) for label, surface in outputs.items()}
        bounds = {label: places.ravel().tolist() for label, places in corners.items()}
        if target.format == "legacy":
            packed = dict.fromkeys(outputs, b"")
            for label, surface in outputs.items():
                mesh = Mesh(frame.nm(surface.vertices).astype(np.float32), surface.faces)
                name = fragment_name(label, box)
                write_file(target.url, name, encode_fragment(mesh), compression=target.compression)
        else:
            packed = {label: pack_surface(surface) for label, surface in outputs.items()}
        if target.index:
            there = {label: frame.moved(corners) for label, corners in bounds.items()}
            meshing.index.write(target.url, box, there, compression=target.compression)
        totals = meshing.pieces.write(number, packed, bounds)
        faces = sum(len(surface.faces) for surface in outputs.values())
        return BlockResult(empty=not outputs, counts=totals | {"triangles": faces})

    @property
    def _begun(self) -> str:
        """The name of the record that says that the scratch data are there."""
        return f"{self.meshing.pieces.source}-begun"

    def _seen(self, box: BoundingBox) -> Seen:
        return Seen.of(box, self.meshing.grid.box, closed=self.meshing.closed)

    def further(self, box: BoundingBox) -> Estimate:
        voxels = self.needs(box).size
        return Estimate(memory=BLOCK_BYTES * voxels, locked_seconds=_SECONDS * voxels, option="mesh --shape")

    def check(self) -> None:
        check_packages("zmesh", "numba", "DracoPy")
        check_own_directory(self.meshing.target.url, self.job, kind="meshes")
        write_record(self.meshing.pieces.scope.url, self._begun, 0, {})

    def intact(self) -> bool:
        return still_there(self.meshing.target.url, self.meshing.pieces, self._begun)

    def describe(self) -> dict[str, Any]:
        meshing = self.meshing
        return {
            "blocks": {"box": str(meshing.grid.box), "shape": meshing.grid.block},
            "frame": dataclasses.asdict(meshing.frame),
            "max_error": meshing.detail.max_error,
            "closed": meshing.closed,
            "selection": dataclasses.asdict(meshing.selection),
            "target": dataclasses.asdict(meshing.target),
        }


def fragment_name(label: int, box: BoundingBox) -> str:
    """Return the name of the legacy fragment that a label has in a block, as igneous names it."""
    sides = (f"{a}-{b}" for a, b in zip(reversed(box.start), reversed(box.stop), strict=True))
    return f"{label}:0:{'_'.join(sides)}"


@dataclass(frozen=True)
class _OfBuckets(Task):
    """A pass over buckets of labels, which are not known before."""

    meshing: Meshing

    def estimate(self, box: BoundingBox) -> Estimate:  # noqa: ARG002
        return Estimate(memory=self.meshing.memory, option="mesh --memory")

    def describe(self) -> dict[str, Any]:
        pieces = self.meshing.pieces
        return {
            "does": type(self).__name__,
            "pieces": pieces.source,
            "detail": dataclasses.asdict(self.meshing.detail),
            "memory": self.meshing.memory,
            "sharding": None if pieces.sharding is None else dict(pieces.sharding),
        }

    def _division(self, fragments: Sequence[Fragment]) -> Division | None:
        return divide(fragments, self.meshing.detail, self.meshing.memory, self.meshing.grid.block)

    def _joined(self, pieces: Sequence[bytes]) -> tuple[Points, Faces]:
        """Return the pieces of a label as one surface: vertices in voxels (xyz), and triangles."""
        surface = Surface.joined([unpack_surface(one, self.meshing.pieces.scope.url) for one in pieces])
        return self.meshing.frame.voxels(surface.vertices), surface.faces


@dataclass(frozen=True)
class CutLargeMeshes(_OfBuckets):
    """Make parts of the labels of a bucket that are too large to be made at once."""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        meshing, (bucket, turn, _) = self.meshing, box.start
        made = 0
        for label, fragments in meshing.pieces.labels_of(bucket):
            division = self._division(fragments)
            if division is None:
                continue
            for number in range(turn, len(division.parts), meshing.turns):
                position, members = division.parts[number]
                surface = self._surface(members, position, division)
                record = make_part(surface.vertices, surface.faces, position, division)
                write_record(meshing.pieces.scope.url, meshing.parts_of(label), number, record)
                made += 1
        return BlockResult(empty=not made, counts={"mesh_parts": made} if made else {})

    def _surface(self, fragments: Sequence[Fragment], position: Position, division: Division) -> Surface:
        """Return what pieces, read one after another, have in a part; vertices in voxels (xyz)."""
        inside = []
        for fragment in fragments:
            piece = self._joined(self.meshing.pieces.read_all([fragment]))
            inside.append(Surface(*clipped(*piece, position, division)))
        return Surface.joined(inside)


@dataclass(frozen=True)
class WriteMeshes(_OfBuckets):
    """Write the meshes of the labels in a bucket."""

    def write(self, box: BoundingBox, outputs: None) -> BlockResult:  # noqa: ARG002
        bucket, counts, target = box.start[0], Counter[str](), self.meshing.target
        pieces = self.meshing.pieces
        if target.format == "legacy":
            self._write_manifests(pieces.labels_of(bucket), counts)
        elif target.format in SURFACE_FILES:
            most = most_bytes(self.meshing.memory)
            for label, fragments, parts in pieces.read_labels(pieces.labels_of(bucket), most):
                data = encode_surface(self._surface(parts), target.format)
                write_file(target.url, f"{label}.{target.format}", data)
                counts.update(meshes=1, joined_fragments=len(fragments), mesh_bytes=len(data))
        elif target.format == "multires":
            for label, (levels, manifest) in self._meshes(pieces.labels_of(bucket), counts):
                write_file(target.url, str(label), b"".join(levels))
                write_file(target.url, f"{label}.index", manifest)
        else:
            sharding = pieces.shards()
            assert sharding is not None
            for number, labels in pieces.shards_of(bucket):
                write_shard(target.url, number, sharding, self._meshes(labels, counts))
        return BlockResult(empty=not counts, counts=dict(counts))

    def _surface(self, parts: Sequence[bytes]) -> Mesh:
        """Return the mesh of a label, in nm."""
        surface = Surface.joined([unpack_surface(one, self.meshing.pieces.scope.url) for one in parts])
        return Mesh(self.meshing.frame.nm(surface.vertices), surface.faces)

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
            division = self._division(fragments)
            if division is None:
                whole, manifest = multires(*self._joined(pieces), meshing.detail)
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
                record = join_parts(required_records(directory, below, members), position, lod, division)
                write_record(directory, name, number, record)
                levels[lod] += fragments_of(record, lod)
                sizes.append(len(record["faces"]))
            cells = [position for position, _ in groups]
        fragments = [data for level in levels for _, data in level]
        return fragments, manifest_of(division.cells, levels).encode()


@dataclass(frozen=True)
class FinishMeshes(Finish):
    """Check what was written, and then announce it; `layer` is None where the meshes stand alone."""

    meshing: Meshing
    layer: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:
        meshing = self.meshing
        check_joined(report.counts, directory, kind="meshes", made="made")
        names = ["meshes", "triangles", *(["mesh_bytes"] if meshing.target.format != "legacy" else [])]
        report.results["meshes"] = {name: report.counts.get(name, 0) for name in names}
        report_absent(report, meshing.pieces, meshing.selection, kind="meshes")
        announce(report, meshing.target.url, self._info(), self.layer, meshing.selection, kind="meshes")

    def _info(self) -> Json | None:
        meshing, target = self.meshing, self.meshing.target
        if target.format in SURFACE_FILES:
            return None
        index = meshing.index.info if target.index else None
        chunk = meshing.grid.block[::-1]
        if target.format == "legacy":
            return legacy_info(mip=target.mip, spatial_index=index, chunk_size=chunk)
        info = multires_info(
            voxel_size=meshing.frame.voxel_size[::-1],
            translation=meshing.frame.translation.tolist(),
            bits=meshing.detail.bits,
            mip=target.mip,
            sharding=meshing.pieces.shards(),
            spatial_index=index,
        )
        return {**info, "chunk_size": list(chunk)}
