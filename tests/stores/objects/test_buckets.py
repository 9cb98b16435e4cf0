"""Meshes and skeletons in buckets and over http: by ranges, without listings where there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from daskflow.errors import StoreAccessError
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Skeletons
from daskflow.stores.objects.shards import object_sharding, shard_numbers, write_shard
from daskflow.stores.objects.skeleton_files import Skeleton, encode_skeleton, skeleton_info
from daskflow.stores.precomputed_info import save_info

LABELS = (5, 2**40 + 7)
LINE = Skeleton(
    np.array([[0, 0, 0], [30, 40, 0]], np.float32), np.array([(0, 1)], np.uint32), {"radius": np.ones(2, np.float32)}
)


def write_layer(url, *, sharded):
    sharding = object_sharding(2, min_shards=2, data_encoding="gzip") if sharded else None
    save_info(url, {"scales": [], "type": "segmentation", "skeletons": "s"})
    write_file(f"{url}/s", "info", json.dumps(skeleton_info(sharding=sharding)).encode())
    for label in LABELS:
        if sharding is None:
            write_file(f"{url}/s", str(label), encode_skeleton(LINE))
        else:
            write_shard(f"{url}/s", int(shard_numbers([label], sharding)[0]), sharding, {label: encode_skeleton(LINE)})


@pytest.mark.emulator
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_objects_in_buckets_are_written_and_read(request, kind, sharded):
    url = f"{request.getfixturevalue(kind)}/objects-{sharded}"
    write_layer(url, sharded=sharded)
    skeletons = Skeletons(url)
    assert skeletons.labels().tolist() == list(LABELS)
    assert [skeletons.read(label).cable_length for label in LABELS] == [50, 50]
    assert skeletons.read(6) is None


def test_objects_are_read_over_http_by_name(http_files):
    url, folder = http_files
    write_layer(f"{folder}/layer", sharded=False)
    skeletons = Skeletons(f"{url}/layer")
    assert [skeletons.read(label).cable_length for label in LABELS] == [50, 50]
    assert skeletons.read(6) is None
    with pytest.raises(StoreAccessError, match="http has no listings"):
        skeletons.labels()
