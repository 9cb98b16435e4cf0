"""Connected components: joining and numbering those of many groups of blocks, on synthetic records.

    python benchmarks/numbering.py                      # 10^6 components in 125 groups: ten seconds
    python benchmarks/numbering.py --components 1e8     # in 12,167 groups: a quarter of an hour
    python benchmarks/numbering.py --small              # 10^4 components, whose figures mean nothing

Groups are 512^3 voxels, as of 64 blocks of 128^3. In each some 8000 components lie inside, and 256 go straight through
along each axis, from end to end of the volume; one of those of every row is joined with the others in every group. The
tasks run one after the other in this process; memory is the most that the process holds above what it held when the
pass began.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
from ccl import peak
from tables import freshly

from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.operators.segmentation.connected_components.blocks import Foreground, Joined, join
from daskflow.operators.segmentation.connected_components.scratch import Labelling
from daskflow.operators.segmentation.connected_components.stages import LabelForeground, MatchSeams, labelling_stages
from daskflow.stores import kvstore
from daskflow.volume import Volume
from daskflow.volume.stage import Scope, Scopes

GROUP, BLOCK = 512, 128
HEADER = f"{'pass':<28}{'tasks':>8}{'CPU s':>8}{'ms/task':>9}{'MB':>8}"


def names_at(box: BoundingBox, whole: BoundingBox, axis: int, side: int, count: int) -> np.ndarray:
    """Return the first voxels of what goes through one side of a group; x modulo 8 tells sides from each other."""
    at = np.arange(count)
    place = [at // 64, at % 64, np.full(count, side * (GROUP // 8 - 1))] if axis == 2 else [at // 64] * 2 + [at % 64]
    if axis < 2:
        place[axis] = np.full(count, side * (GROUP - 1))
    z, y, x = (p + start for p, start in zip((*place[:2], place[2] * 8 + 2 * axis + side), box.start, strict=True))
    return (z * whole.shape[1] + y) * whole.shape[2] + x


def names_inside(box: BoundingBox, whole: BoundingBox, count: int) -> np.ndarray:
    """Return the first voxels of what lies inside a group, in any order."""
    slots = GROUP * GROUP * (GROUP // 8)
    rng = np.random.default_rng(box.start)
    at = slots // count * np.arange(count) + rng.integers(0, slots // count, count)
    z, y, x = np.unravel_index(rng.permutation(at), (GROUP, GROUP, GROUP // 8))
    return ((z + box.start[0]) * whole.shape[1] + y + box.start[1]) * whole.shape[2] + x * 8 + 7 + box.start[2]


def join_group(labelling: Labelling, group: int, inside: int, through: int) -> Joined:
    """Return what matching the seams of a group would find."""
    groups, whole = labelling.levels[0], labelling.grid.box
    box, place = groups[group], groups.position(group)
    names, pairs, out, outside = [names_inside(box, whole, inside)], [], [], []
    border, begin = [np.zeros(inside, bool)], inside
    for axis in range(3):
        low, high = (np.arange(begin + side * through, begin + (side + 1) * through) for side in (0, 1))
        pairs += [np.stack((low, high), axis=1), [[inside, begin]]]
        begin += 2 * through
        after = tuple(p + (a == axis) for a, p in enumerate(place))
        ends = place[axis] > 0, after[axis] < groups.shape[axis]
        for side in (0, 1):
            names.append(names_at(box, whole, axis, side, through))
            border.append(np.full(through, ends[side]))
        if ends[1]:
            out.append(high)
            outside.append(names_at(groups[groups.index(after)], whole, axis, 0, through))
    leaving = tuple(np.concatenate([np.empty(0, np.int64), *found]) for found in (out, outside))
    firsts = np.concatenate(names)
    sizes = np.ones(len(firsts), np.int64)
    joined = join(firsts, np.concatenate(pairs), sizes, np.concatenate(border), leaving, labelling.dust)
    joined.parts["starts"] = np.zeros(65, np.int64)
    return joined


def show(name: str, tasks: int, seconds: float, held: int) -> None:
    """Print a row."""
    print(f"{name:<28}{tasks:>8,}{seconds:>8.1f}{seconds / tasks * 1e3:>9.2f}{held / 1e6:>8.0f}", flush=True)


def main(components: int, inside: int, through: int) -> None:
    side = max(2, round((components / (inside + 2 * through)) ** (1 / 3)))
    box = BoundingBox((0, 0, 0), (side * GROUP,) * 3)
    grid = BlockGrid(box, (BLOCK,) * 3)
    expected = side**3 * inside + 3 * (through - 1) * side**2 + 1
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="daskflow-numbering-") as directory:
        labelling = Labelling(grid, 6, Scope("all", url=kvstore.normalise(directory)))
        groups = labelling.levels[0]
        print(f"{expected:,} components in {len(groups):,} groups\n{HEADER}")
        before, seconds, matching = freshly(), 0.0, MatchSeams(labelling, 0)
        for group, part in enumerate(groups):
            joined = join_group(labelling, group, inside, through)
            start = time.process_time()
            matching.write(part, joined)
            seconds += time.process_time() - start
        show("write", len(groups), seconds, peak() - before)
        volume = Volume.from_array(np.zeros((1, 1, 1), np.uint8))
        stages = labelling_stages(LabelForeground(labelling, Foreground()), volume.expression, np.dtype(np.uint64))
        counts = dict[str, int]()
        for stage in stages[2:]:
            task, before, start = stage.task.bind(Scopes(directory)), freshly(), time.process_time()
            for part in stage.grid:
                counts |= task.write(part, task.compute(part, task.read(part))).counts
            show(stage.name, len(stage.grid), time.process_time() - start, peak() - before)
        assert counts["components"] == expected, (counts, expected)
        check(labelling, inside, through)
    print(f"{time.perf_counter() - began:.0f} s in all, with making the records")


def check(labelling: Labelling, inside: int, through: int) -> None:
    """Raise unless the numbers rise with the first voxels, and what goes through groups has one number in them."""
    groups = labelling.levels[0]
    rows: dict[tuple[int, int, int], np.ndarray] = {}
    for group in np.unique(np.linspace(0, len(groups) - 1, 8).astype(int)).tolist():
        _, numbers = labelling.read_numbers(group)
        order = np.argsort(names_inside(groups[group], labelling.grid.box, inside))
        assert np.all(np.diff(numbers[:inside][order].astype(np.int64)) > 0)
        place = groups.position(group)
        for axis in range(3):
            begin = inside + 2 * axis * through
            low, high = numbers[begin : begin + through], numbers[begin + through : begin + 2 * through]
            assert np.array_equal(low, high)
            row = (axis, *(p for a, p in enumerate(place) if a != axis))
            assert np.array_equal(rows.setdefault(row, low), low)
            assert low[0] == rows[next(iter(rows))][0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--components", type=float, default=1e6)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    main(*((10_000, 300, 16) if options.small else (int(options.components), 8_000, 256)))
