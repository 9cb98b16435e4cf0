"""The pass that makes the surfaces of every block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from daskflow.errors import MissingDependencyError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.jobs.consumer import Consumer
from daskflow.operators.objects._destination import check_own_directory
from daskflow.operators.objects.mesh.packed import pack_surface
from daskflow.operators.objects.mesh.plan import Meshing
from daskflow.operators.objects.mesh.simplify import finest_error, simplify
from daskflow.operators.objects.mesh.surface import Seen, Surface, extent, filled_labels, select, surfaces
from daskflow.operators.segmentation.voxel_counts.blocks import count_labels
from daskflow.scratch.records import record_url, write_record
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import Mesh, encode_fragment
from daskflow.volume import BlockResult, Estimate
from daskflow.volume.stage import Scopes

Array = npt.NDArray[Any]
Outputs = dict[int, Surface]

_SECONDS = 6e-7  # per voxel of real neurites, of which both libraries keep Python's lock
BLOCK_BYTES = 50  # per voxel: labels as numbers of 4 bytes, twice, and the triangles of a dense block


@dataclass(frozen=True)
class ForgeMeshes(Consumer):
    """Make the surfaces of the labels of a block, and simplify them.

    Attributes:
        meshing: what is done.
        job: URL of the job's directory, once bound.
    """

    meshing: Meshing
    job: str = ""

    @property
    def grid(self) -> BlockGrid:
        return self.meshing.grid

    def needs(self, box: BoundingBox) -> BoundingBox:
        return self._seen(box).read

    def compute(self, box: BoundingBox, arrays: list[Array]) -> Outputs:
        seen = self._seen(box)
        labels = self._chosen(_unsigned(arrays[0].reshape(seen.read.shape)), box.slices(seen.read))
        passes = filled_labels(labels) if self.meshing.selection.fill_holes else (labels,)
        return {label: surface for one in passes for label, surface in self._surfaces(seen, one)}

    def _surfaces(self, seen: Seen, labels: Array) -> Iterator[tuple[int, Surface]]:
        meshing = self.meshing
        if not labels.any():
            return
        error = finest_error(meshing.max_error, meshing.voxel_size)
        for label, surface in surfaces(labels, seen.corner(meshing.grid.box.start), seen.around):
            if len(surface.faces):
                fewer = simplify(surface.vertices, surface.faces, error, meshing.voxel_size, unit=0.5)
                yield label, Surface(*fewer)

    def _chosen(self, labels: Array, inside: tuple[slice, slice, slice]) -> Array:
        """Return the labels that are meshed, background in place of the others.

        Args:
            labels: zyx.
            inside: the block itself, without the voxels that it shares with the next ones.
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
        return Estimate(memory=BLOCK_BYTES * voxels, locked_seconds=_SECONDS * voxels)

    def check(self) -> None:
        """Raise unless the libraries are there, and the directory can be written and is new or of this job.

        Raises:
            MissingDependencyError: zmesh, pyfqmr or DracoPy is not installed.
            MetadataMismatchError: there are meshes of another job.
            StoreAccessError: the location refuses.
        """
        _check_installed()
        url = self.meshing.target.url
        check_own_directory(url, self.job, kind="meshes", option="--mesh")
        write_record(self.meshing.pieces.scope.url, self._begun, 0, {})

    def intact(self) -> bool:
        """Return whether what an earlier run wrote is still there: scratch data until it is complete, then the info."""
        return kvstore.exists(f"{self.meshing.target.url}/info") or kvstore.exists(
            record_url(self.meshing.pieces.scope.url, self._begun, 0)
        )

    def describe(self) -> dict[str, Any]:
        return self.meshing.describe_pieces()

    def bind(self, scopes: Scopes) -> ForgeMeshes:
        return ForgeMeshes(self.meshing.bind(scopes), scopes.job)


def fragment_name(label: int, box: BoundingBox) -> str:
    """Return the name of the legacy fragment that a label has in a block, as igneous names it."""
    sides = (f"{a}-{b}" for a, b in zip(reversed(box.start), reversed(box.stop), strict=True))
    return f"{label}:0:{'_'.join(sides)}"


def _unsigned(array: Array) -> Array:
    """Return labels as unsigned integers of the same size."""
    return array if array.dtype.kind == "u" else array.view(f"u{array.dtype.itemsize}")


def _check_installed() -> None:
    for package in ("zmesh", "pyfqmr", "DracoPy"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingDependencyError.of(package, "mesh") from error
