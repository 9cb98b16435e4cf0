"""Scores of a merge tree at many thresholds, from one count of the voxels that its fragments share with the truth."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.geometry import BoundingBox
from daskflow.operators.segmentation._merge_tree import MergeTree, read_tree
from daskflow.operators.segmentation.evaluate_segmentation.scores import (
    PAIRS,
    by_segment,
    by_truth,
    pair_sums,
    scores_of,
    size_sums,
)
from daskflow.scratch.records import Arrays, read_record, write_record
from daskflow.scratch.tables import Table, found_in, merged
from daskflow.stores import kvstore, states
from daskflow.stores.figure import svg
from daskflow.volume import BlockResult, Stage, Task, numbered

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
COLUMNS = (
    *("threshold", "segments", "vi_split", "vi_merge", "variation_of_information"),
    *("rand_index", "adapted_rand_error"),
)
_NAME = "score-thresholds"
_COLOURS = {"vi_split": "#4477aa", "vi_merge": "#ee6677", "variation_of_information": "black"}
_WIDTH, _HEIGHT, _LEFT, _TOP = 480, 260, 60, 20


@dataclass(frozen=True)
class ScoreThresholds(Task):
    """Score what a merge tree makes of fragments at some thresholds; one task, which holds all pairs and the tree.

    Attributes:
        pairs: voxels that fragments share with the truth.
        tree: URL of the merge tree.
        thresholds: falling; None for some, as far down as the tree goes.
    """

    pairs: Table
    tree: str
    thresholds: tuple[float, ...] | None

    def read(self, box: BoundingBox) -> tuple[Arrays, MergeTree]:  # noqa: ARG002
        return merged(PAIRS, list(self.pairs.tables())), read_tree(self.tree)

    def compute(self, box: BoundingBox, inputs: tuple[Arrays, MergeTree]) -> list[dict[str, Any]]:  # noqa: ARG002
        rows, tree = inputs
        found = []
        for threshold in self._thresholds(tree):
            rows = relabelled(rows, tree, threshold)
            segments = by_segment(rows)
            scores = scores_of(pair_sums(rows), size_sums(segments), size_sums(by_truth(rows)))
            found.append({"threshold": threshold, "segments": int(np.count_nonzero(segments["ids"])), **scores})
        return found

    def write(self, box: BoundingBox, outputs: list[dict[str, Any]]) -> BlockResult:  # noqa: ARG002
        text = np.frombuffer(json.dumps(outputs).encode(), np.uint8)
        write_record(self.pairs.scope.url, _NAME, 0, {"json": text})
        return BlockResult()

    def _thresholds(self, tree: MergeTree) -> list[float]:
        if self.thresholds is not None:
            return list(self.thresholds)
        return [one for one in reversed(THRESHOLDS) if one > tree.least] + [tree.least]

    def check(self) -> None:
        tree = read_tree(self.tree)
        tree.names(min(self._thresholds(tree)))

    def describe(self) -> dict[str, Any]:
        written = {"tree": kvstore.redact(self.tree), "written": states.object_state(self.tree)}
        return {**written, "thresholds": self.thresholds and list(self.thresholds)}

    def stage(self) -> Stage:
        """Return its one pass."""
        return Stage(_NAME, numbered(1), self, numbered=True)

    def result(self) -> list[dict[str, Any]]:
        """Return the scores at every threshold, falling, after it ran."""
        record = read_record(self.pairs.scope.url, _NAME, 0)
        assert record is not None
        found: list[dict[str, Any]] = json.loads(record["json"].tobytes())
        return found


def relabelled(rows: Arrays, tree: MergeTree, threshold: float) -> Arrays:
    """Return pairs of fragments and true segments, columns as in `PAIRS`, with the names at a threshold."""
    regions, names = tree.names(threshold)
    segments = rows["segments"].copy()
    at, there = found_in(regions, segments)
    segments[there] = names[at[there]]
    return merged(PAIRS, [rows | {"segments": segments}])


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores with the least variation of information, of the highest threshold that has it."""
    return min(found, key=lambda one: (one["variation_of_information"], -one["threshold"]))


def plot_of(found: list[dict[str, Any]]) -> str:
    """Return a picture (SVG) of the variation of information over the threshold, and of its split and merge."""
    low, high = (limit([one["threshold"] for one in found]) for limit in (min, max))
    top = max(one["variation_of_information"] for one in found) or 1.0
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT

    def place(threshold: float, bits: float) -> str:
        x = _LEFT + _WIDTH * (threshold - low) / ((high - low) or 1)
        return f"{x:.1f},{bottom - _HEIGHT * bits / top:.1f}"

    shapes = [f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="grey"/>']
    for bits in np.linspace(0, top, 5):
        y = place(low, bits).split(",")[1]
        shapes.append(f'<text x="{_LEFT - 6}" y="{y}" text-anchor="end">{bits:.2f}</text>')
    for threshold in np.linspace(low, high, 6):
        x = place(threshold, 0).split(",")[0]
        shapes.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{threshold:.2f}</text>')
    for number, (name, colour) in enumerate(_COLOURS.items()):
        points = " ".join(place(one["threshold"], one[name]) for one in found)
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes.append(f'<text x="{right + 12}" y="{_TOP + 16 * number + 8}" fill="{colour}">{html.escape(name)}</text>')
    x, y = place(best(found)["threshold"], best(found)["variation_of_information"]).split(",")
    shapes.append(f'<circle cx="{x}" cy="{y}" r="4"/>')
    middle = _LEFT + _WIDTH // 2
    shapes.append(f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">bits over threshold</text>')
    return svg(shapes, right + 190, bottom + 46)
