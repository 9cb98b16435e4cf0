"""Skeletons of a layer, in shards and not, read here and by CloudVolume."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.errors import StoreError, StoreNotFoundError
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Skeletons, read_skeleton
from daskflow.stores.objects.shards import object_sharding, shard_numbers, write_shard
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info

LABELS = (5, 2**40 + 7)
LINE = Skeleton(
    np.array([[0, 0, 0], [30, 40, 0]], np.float32), np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)}
)


@pytest.fixture(params=["files", "gzip", "shards"])
def written(request, with_objects, layer):
    sharding = object_sharding(2, min_shards=4, data_encoding="gzip") if request.param == "shards" else None
    directory = with_objects("skeletons", skeleton_info(mip=0, sharding=sharding))
    for label in LABELS:
        if sharding is None:
            compression = "gzip" if request.param == "gzip" else "none"
            write_file(directory, str(label), encode_skeleton(LINE), compression=compression)
        else:
            number = int(shard_numbers([label], sharding)[0])
            write_shard(directory, number, sharding, {label: encode_skeleton(LINE)})
    write_file(directory, "5:0-1_0-1_0-1", b"a fragment that is not a skeleton")
    return layer


def test_every_label_is_listed_and_read(written):
    assert Skeletons(written).labels().tolist() == sorted(LABELS)
    for label in LABELS:
        found = read_skeleton(written, label)
        assert found.cable_length == 50
        assert np.array_equal(found.vertices, LINE.vertices)
    assert read_skeleton(written, 6) is None


@pytest.mark.filterwarnings("ignore")
def test_cloudvolume_reads_the_same(written):
    from cloudvolume import CloudVolume

    found = CloudVolume(written, progress=False).skeleton.get(LABELS[1])
    assert np.array_equal(found.vertices, LINE.vertices)
    assert np.array_equal(found.radius, LINE.attributes["radius"])


def test_a_layer_without_skeletons_says_so(layer, with_objects):
    with pytest.raises(StoreNotFoundError, match="has no skeletons"):
        Skeletons(layer)
    with_objects("skeletons", {"@type": "else"})
    with pytest.raises(StoreError, match="does not describe"):
        Skeletons(layer)
