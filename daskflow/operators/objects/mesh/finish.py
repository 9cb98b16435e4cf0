"""The last steps of a meshing: see that nothing was lost, and write the files by which viewers find meshes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from daskflow.jobs import Report
from daskflow.jobs.report import Finish
from daskflow.layers.provenance import provenance
from daskflow.operators.objects._destination import check_joined, report_absent
from daskflow.operators.objects.mesh.plan import Meshing
from daskflow.stores import kvstore
from daskflow.stores.objects.mesh_files import Json, legacy_info, multires_info
from daskflow.stores.objects.naming import name_objects


@dataclass(frozen=True)
class FinishMeshes(Finish):
    """Check what was written, and then announce it.

    Attributes:
        meshing: what was done.
        layer: URL of the layer that the meshes belong to, None when they stand alone.
    """

    meshing: Meshing
    layer: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:
        """Finish the job in `directory`.

        Raises:
            JobError: pieces of meshes were lost on the way.
        """
        check_joined(report.counts, directory, kind="meshes", made="made")
        url = self.meshing.target.url
        info = json.dumps(self._info(), indent=1).encode()
        kvstore.write_bytes(f"{url}/info", info)
        kvstore.write_bytes(f"{url}/provenance", json.dumps(provenance(report), indent=1).encode())
        names = ["meshes", "triangles", *(["mesh_bytes"] if self.meshing.target.format != "legacy" else [])]
        report.results["meshes"] = {name: report.counts.get(name, 0) for name in names}
        chosen = self.meshing.selection
        report_absent(report, self.meshing.pieces, labels=chosen.labels, exclude=chosen.exclude, kind="meshes")
        if self.layer is not None and (report.counts.get("meshes") or not chosen.partial):
            name_objects(self.layer, chosen.partial, mesh=url.rpartition("/")[2])

    def _info(self) -> Json:
        meshing, target = self.meshing, self.meshing.target
        index = meshing.index.info if target.index else None
        chunk = meshing.grid.block[::-1]
        if target.format == "legacy":
            return legacy_info(mip=target.mip, spatial_index=index, chunk_size=chunk)
        info = multires_info(
            voxel_size=meshing.voxel_size[::-1],
            translation=meshing.frame.translation.tolist(),
            bits=meshing.detail.bits,
            mip=target.mip,
            sharding=meshing.pieces.shards(),
            spatial_index=index,
        )
        return {**info, "chunk_size": list(chunk)}
