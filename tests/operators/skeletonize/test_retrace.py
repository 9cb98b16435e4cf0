"""The joined graph of several blocks is traced again, so that it resembles what one block would have found."""

import time

import numpy as np
import pytest

from daskflow.clusters import Threads
from daskflow.operators.objects.skeletonize import skeletonize
from daskflow.operators.objects.skeletonize.pieces import Piece, components
from daskflow.operators.objects.skeletonize.prune import retrace
from daskflow.operators.objects.skeletonize.teasar import Tracing
from daskflow.stores.objects.layer_objects import Skeletons
from daskflow.volume import Volume

TRACING = Tracing((10.0, 10.0, 10.0), scale=2.0, const=0.0)


def piece(vertices, edges, radius):
    return Piece(np.array(vertices, np.int32), np.array(edges, np.uint32), {"radius": np.array(radius, np.float32)})


def line(*points):
    """Return vertices one voxel apart on a way along the axes, and the edges between them."""
    vertices = [points[0]]
    for end in points[1:]:
        while vertices[-1] != end:
            step = np.sign(np.subtract(end, vertices[-1]))
            vertices.append(tuple(np.add(vertices[-1], step).tolist()))
    return vertices, [(n, n + 1) for n in range(len(vertices) - 1)]


def comb(tooth, radius):
    """Return a trunk of 40 voxels with a branch of `tooth` voxels in its middle."""
    trunk, edges = line((0, 0, 0), (40, 0, 0))
    branch = [(20, y, 0) for y in range(1, tooth + 1)]
    edges = [*edges, (20, 41), *((n, n + 1) for n in range(41, 40 + tooth))]
    return piece([*trunk, *branch], edges, [radius] * (41 + tooth))


@pytest.mark.parametrize(("tooth", "radius", "left"), [(8, 50, 41), (12, 50, 53), (3, 20, 41), (6, 20, 47)])
def test_branches_that_paths_cover_go_and_longer_ones_stay(tooth, radius, left):
    found = retrace(comb(tooth, radius), TRACING, np.zeros(41 + tooth, np.uint8))
    assert len(found.vertices) == left
    assert len(found.edges) == left - 1


def test_ends_where_the_volume_ends_stay_one_for_each_patch():
    whole = comb(3, 20)
    faces = np.zeros(44, np.uint8)
    faces[43] = 1
    assert len(retrace(whole, TRACING, faces).vertices) == 44
    forked = piece([*whole.vertices.tolist(), (21, 3, 0)], [*whole.edges.tolist(), (42, 44)], [20] * 45)
    assert len(retrace(forked, TRACING, np.append(faces, 1).astype(np.uint8)).vertices) == 44


def test_many_ends_where_the_volume_ends_take_time_by_their_number():
    count = 20_000  # objects of one label, as a mask has them; each pair of ends compared would take 19 s
    vertices = np.stack([np.tile([0, 1], count), np.repeat(np.arange(count) * 4, 2), np.zeros(2 * count, int)], axis=1)
    objects = piece(vertices, np.arange(2 * count).reshape(-1, 2), np.full(2 * count, 10))
    began = time.process_time()
    found = retrace(objects, TRACING, np.tile(np.array([128, 0], np.uint8), count))
    assert time.process_time() - began < 8
    assert len(found.edges) == count


def test_loops_are_opened_and_components_stay_apart():
    ring, edges = line((0, 0, 0), (0, 9, 0), (9, 9, 0), (9, 0, 0), (0, 0, 0))
    ring, edges = ring[:-1], [(a, b % 36) for a, b in edges]
    other, more = line((12, 0, 0), (12, 9, 0))
    joined = piece([*ring, *other], [*edges, *((a + 36, b + 36) for a, b in more)], [5] * 46)
    found = retrace(joined, TRACING, np.zeros(46, np.uint8))
    assert len(found.edges) == len(found.vertices) - 2
    assert components(len(found.vertices), found.edges).max() == 1


def neurites():
    """Return a fat tube with a thin branch, a thin one that winds, and a blob, in 40 x 48 x 96 voxels."""
    z, y, x = np.mgrid[:40, :48, :96]
    array = np.zeros(z.shape, np.uint32)
    array[(z - 20) ** 2 + (y - 14 - 4 * np.sin(x / 15)) ** 2 < 10**2] = 1
    array[(z - 20) ** 2 + (x - 47) ** 2 < 3**2] = np.where(y < 40, 1, 0)[(z - 20) ** 2 + (x - 47) ** 2 < 3**2]
    array[(z - 8 - 3 * np.sin(x / 9)) ** 2 + (y - 42) ** 2 < 3**2] = 2
    array[(z - 27) ** 2 + (y - 36) ** 2 + (x - 72) ** 2 < 9**2] = 3
    return array


@pytest.mark.parametrize(("shape", "more"), [((64, 64, 48), 1.1), ((24, 30, 40), 1.15)])
def test_cable_and_tips_are_about_those_of_one_block(tmp_path, shape, more):
    volume = Volume.from_array(neurites(), voxel_size=(10, 10, 10), layer_type="segmentation")

    def measured(name, shape):
        job = skeletonize(volume, output=str(tmp_path / name), shape=shape, dust=0, min_cable_length=0)
        with Threads(1) as threads:
            job.run(threads, progress=False)
        found = [Skeletons(str(tmp_path), directory=name).read(label) for label in (1, 2, 3)]
        trees = [components(len(one.vertices), one.edges).max() for one in found]
        tips = sum(int((np.bincount(one.edges.ravel()) == 1).sum()) for one in found)
        return sum(one.cable_length for one in found), tips, trees

    cable, tips, trees = measured("one", (96, 96, 96))
    blocks_cable, blocks_tips, blocks_trees = measured("blocks", shape)
    assert blocks_trees == trees == [0, 0, 0]
    assert cable / more < blocks_cable < cable * more
    assert blocks_tips <= 1.3 * tips
