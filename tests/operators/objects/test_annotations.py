"""Annotation layers, read back by CloudVolume, by tensorstore and by what their format says."""

from __future__ import annotations

import json

import numpy as np
import pytest

import daskflow
from daskflow.errors import MetadataMismatchError, ParameterError
from daskflow.stores.objects.annotations import Annotations, spatial_levels
from daskflow.stores.objects.located import Points
from daskflow.stores.objects.synapses import Synapses

SIZE = (40.0, 4.0, 8.0)


@pytest.fixture
def synapses():
    random = np.random.default_rng(5)
    pre, post = random.integers(0, 60, (80, 3)), random.integers(0, 60, (300, 3))
    attributes = {
        "post_confidence": random.random(300).astype("f4"),
        "pre_users": random.integers(-1, 2, 80).astype("i4"),
    }
    rows = random.integers(0, 80, (300, 1))
    return Synapses(pre, np.concatenate([rows, post], 1), SIZE, attributes, ("ada", "bob"))


@pytest.fixture
def labels():
    array = np.random.default_rng(6).integers(0, 4, (60, 60, 50), np.uint64) << np.uint64(40)
    return array, daskflow.open(array, voxel_size=SIZE, layer_type="segmentation")


def read_cells(url, info):
    """Return ids and geometry of all cells of the spatial index, level by level."""
    width = 3 if info["annotation_type"] == "POINT" else 6
    row = np.dtype([("place", "<f4", width), *((one["id"], f"<{one['type'][0]}4") for one in info["properties"])])
    for level in info["spatial"]:
        for path in sorted((url / level["key"]).iterdir()):
            data = path.read_bytes()
            count = int(np.frombuffer(data, "<u8", 1)[0])
            rows = np.frombuffer(data, row, count, 8)
            yield level, tuple(map(int, path.name.split("_"))), np.frombuffer(data, "<u8", count, 8 + rows.nbytes), rows


def test_synapses_are_lines_with_properties_and_relationships(synapses, labels, tmp_path):
    _, segmentation = labels
    assert daskflow.save_annotations(synapses, segmentation, output=tmp_path / "a", limit=40).run(progress=False).ok
    info = json.loads((tmp_path / "a" / "info").read_text())
    assert info["dimensions"] == {"x": [8e-9, "m"], "y": [4e-9, "m"], "z": [4e-8, "m"]}
    assert [one["id"] for one in info["relationships"]] == ["pre_segment", "post_segment"]
    parents = synapses.post[:, 0]
    expected = np.concatenate([synapses.pre[parents][:, ::-1], synapses.post[:, :0:-1]], 1) + 0.5
    found, limits = {}, {}
    for level, cell, ids, rows in read_cells(tmp_path / "a", info):
        low = np.array(info["lower_bound"]) + np.array(cell) * level["chunk_size"]
        high = low + level["chunk_size"]
        assert len(ids) <= level["limit"]
        for number, one in zip(ids.tolist(), rows, strict=True):
            found.setdefault(number, one)
            ends = one["place"].reshape(2, 3)
            points = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, 2001)[:, None]
            assert ((points >= low - 0.1) & (points <= high + 0.1)).all(1).any()
        limits[level["key"]] = max(limits.get(level["key"], 0), len(ids))
    assert len(info["spatial"]) > 1
    assert max(limits.values()) < 80
    assert sorted(found) == list(range(1, 301))
    for number, row in found.items():
        assert row["place"].tolist() == expected[number - 1].tolist()
        assert row["post_confidence"] == synapses.attributes["post_confidence"][number - 1]
        assert row["pre_users"] == synapses.attributes["pre_users"][parents[number - 1]]
    assert info["properties"][1]["enum_labels"] == ["ada", "bob"]


def label_at(array, place):
    inside = all(0 <= at < n for at, n in zip(place, array.shape, strict=True))
    return int(array[tuple(place)]) if inside else 0


@pytest.mark.parametrize("block", [(7, 60, 13), (60, 9, 50)])
def test_annotations_are_the_same_for_any_blocks_of_the_segmentation(synapses, labels, tmp_path, block):
    _, segmentation = labels
    written = []
    for name, size in {"whole": (60, 60, 50), "blocks": block}.items():
        daskflow.save_annotations(synapses, segmentation.with_block(size), output=tmp_path / name).run(progress=False)
        paths = (path for path in sorted((tmp_path / name).rglob("*")) if path.is_file())
        written.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in paths})
    assert len(written[0]) > 4
    assert written[0] == written[1]


def test_tensorstore_and_cloudvolume_read_the_indexes(synapses, labels, tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    source = pytest.importorskip("cloudvolume.datasource.precomputed.annotation").PrecomputedAnnotationSource
    array, segmentation = labels
    segmentation = segmentation.with_block((16, 16, 16))
    report = daskflow.save_annotations(synapses, segmentation, output=tmp_path / "a").run(progress=False)
    outside = sum(label_at(np.ones_like(array), place) == 0 for place in synapses.pre[synapses.post[:, 0]])
    outside += sum(label_at(np.ones_like(array), place) == 0 for place in synapses.post[:, 1:])
    assert report.counts["sites_outside_the_segmentation"] == outside > 0
    info = json.loads((tmp_path / "a" / "info").read_text())
    sharded = {"driver": "neuroglancer_uint64_sharded", "metadata": info["by_id"]["sharding"]}
    store = tensorstore.KvStore.open({**sharded, "base": f"file://{tmp_path}/a/by_id/"}).result()
    expected = {}
    for row, (parent, *place) in enumerate(synapses.post.tolist()):
        data = store.read((row + 1).to_bytes(8, "big")).result().value
        assert np.frombuffer(data, "<f4", 3, 12).tolist() == [one + 0.5 for one in place[::-1]]
        segments, at = [], 24 + 4 * len(info["properties"])
        for _ in range(2):
            count = int(np.frombuffer(data, "<u4", 1, at)[0])
            segments.append(np.frombuffer(data, "<u8", count, at + 4).tolist())
            at += 4 + 8 * count
        assert at == len(data)
        pair = [label_at(array, synapses.pre[parent]), label_at(array, place)]
        assert segments == [[one] if one else [] for one in pair]
        expected.setdefault(pair[1], []).append(row + 1)
    daskflow.save_annotations(synapses, segmentation, output=tmp_path / "post", sites="post").run(progress=False)
    annotations = source(f"precomputed://file://{tmp_path}/post")  # whose reader of lines raises, in CloudVolume 12.15
    for label in [one for one in expected if one]:
        found = annotations.get_by_relationship("segment", label)
        assert sorted(np.asarray(found.ids).tolist()) == expected[label]


def test_points_of_a_side_and_what_is_refused(synapses, tmp_path):
    daskflow.save_annotations(synapses, output=tmp_path / "pre", sites="pre").run(progress=False)
    info = json.loads((tmp_path / "pre" / "info").read_text())
    assert (info["annotation_type"], info["relationships"]) == ("POINT", [])
    assert [one["id"] for one in info["properties"]] == ["users"]
    points = Points(np.array([(1.25, 2, 3)]), SIZE, np.array([0.5]))
    daskflow.save_annotations(points, output=tmp_path / "points").run(progress=False)
    info = json.loads((tmp_path / "points" / "info").read_text())
    ((_, _, ids, rows),) = read_cells(tmp_path / "points", info)
    assert (ids.tolist(), rows["place"].tolist(), rows["confidence"].tolist()) == ([1], [[3, 2, 1.25]], [0.5])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "info").write_text("{}")
    with pytest.raises(MetadataMismatchError, match="holds something else"):
        daskflow.save_annotations(points, output=tmp_path / "other").run(progress=False)
    with pytest.raises(ParameterError, match="known voxel size"):
        daskflow.save_annotations(Points(np.zeros((1, 3))), output=tmp_path / "b")


def test_many_annotations_at_one_place_end():
    many = Annotations("POINT", np.full((3000, 3), 7.5), (4, 4, 40))
    levels = list(spatial_levels(many, 100))
    assert sum(len(rows) for level in levels for rows in level.cells.values()) == 3000
    assert len(levels) <= 20
    (empty,) = spatial_levels(Annotations("POINT", np.zeros((0, 3)), (4, 4, 40)), 100)
    assert not empty.cells
