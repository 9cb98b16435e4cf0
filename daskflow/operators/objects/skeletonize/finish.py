"""The last steps of a skeletonization: totals, the table, and the files by which viewers find skeletons."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import IO

from daskflow.jobs import Report
from daskflow.jobs.report import Finish
from daskflow.layers.provenance import provenance
from daskflow.operators.objects._destination import check_joined, report_absent
from daskflow.operators.objects.skeletonize.plan import Skeletonizing
from daskflow.operators.objects.skeletonize.write import vertex_attributes, written
from daskflow.stores import kvstore
from daskflow.stores.objects.files import writing
from daskflow.stores.objects.naming import name_objects
from daskflow.stores.objects.skeleton_files import skeleton_info

_LARGEST = 10


@dataclass(frozen=True)
class FinishSkeletons(Finish):
    """Check and add up what was written, and then announce it.

    Attributes:
        plan: the skeletonization.
        url: of the directory of skeletons.
        layer: URL of the layer that it belongs to, None when it stands alone.
        mip: level that was skeletonized.
        table: URL of a CSV file with a row for each skeleton, or None.
    """

    plan: Skeletonizing
    url: str
    layer: str | None
    mip: int
    table: str | None
    reads_scratch = True

    def __call__(self, report: Report, directory: str) -> None:
        """Finish the job in `directory`.

        Raises:
            JobError: pieces of skeletons were lost on the way.
        """
        check_joined(report.counts, directory, kind="skeletons", made="traced")
        self._add_up(report)
        chosen = self.plan.selection
        report_absent(report, self.plan.pieces, labels=chosen.labels, exclude=chosen.exclude, kind="skeletons")
        x, y, z = self.plan.translation
        info = skeleton_info(
            transform=(1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, z),
            vertex_attributes=vertex_attributes(self.plan),
            mip=self.mip,
            sharding=self.plan.pieces.shards(),
            spatial_index=self.plan.index.info,
        )
        kvstore.write_bytes(f"{self.url}/info", json.dumps(info, indent=1).encode())
        kvstore.write_bytes(f"{self.url}/provenance", json.dumps(provenance(report), indent=1).encode())
        if self.layer is not None and (report.counts.get("skeletons") or not chosen.partial):
            name_objects(self.layer, chosen.partial, skeletons=self.url.rpartition("/")[2])

    def _add_up(self, report: Report) -> None:
        with contextlib.nullcontext() if self.table is None else writing(self.table) as file:
            totals, longest = self._totals(file)
        report.results["skeletons"] = totals
        report.results["longest_cables_nm"] = {f"label {label}": length for length, label in longest}

    def _totals(self, file: IO[bytes] | None) -> tuple[dict[str, float], list[tuple[float, int]]]:
        """Return the sums and the longest skeletons, and write the rows of the table, bucket by bucket."""
        totals = {"skeletons": 0, "vertices": 0, "cable_length_nm": 0.0}
        longest: list[tuple[float, int]] = []
        if file is not None:
            file.write(b"label,cable_length_nm,vertices\n")
        for record in written(self.plan):
            labels, cable, vertices = (record[name].tolist() for name in ("labels", "cable", "vertices"))
            totals["skeletons"] += len(labels)
            totals["vertices"] += sum(vertices)
            totals["cable_length_nm"] += sum(cable)
            longest = sorted([*longest, *zip(cable, labels, strict=True)], key=lambda one: (-one[0], one[1]))[:_LARGEST]
            if file is not None:
                rows = zip(labels, cable, vertices, strict=True)
                file.write("".join(f"{label},{length:.2f},{count}\n" for label, length, count in rows).encode())
        return totals, longest
