"""Meshes and skeletons in another layer: the same bytes, or the same objects in shards."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.errors import DaskflowError, MetadataMismatchError, ParameterError, StoreNotFoundError
from daskflow.geometry import BoundingBox
from daskflow.jobs import merge
from daskflow.jobs.outputs import jobs_of
from daskflow.operators.objects.copy_objects import copy_objects
from daskflow.stores import kvstore
from daskflow.stores.objects.files import names_below, read_file, write_file
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.stores.objects.spatial_index import SpatialIndex
from daskflow.stores.precomputed_info import load_info, save_info

VOLUME = BoundingBox((0, 0, 0), (64, 64, 64))


@pytest.fixture
def target(tmp_path, objects):
    url = objects.bare_layer(f"file://{tmp_path}/target")
    save_info(url, load_info(url) | {"note": "kept"})
    return url


def volume_of(mesh):
    a, b, c = mesh.vertices.astype(float)[mesh.faces.astype(int)].transpose(1, 0, 2)
    return abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def check_objects(url, objects, *, close=0.0):
    """See that a layer has the meshes, skeletons and spatial index of the fixtures."""
    meshes, skeletons = Meshes(url), Skeletons(url)
    assert meshes.labels().tolist() == skeletons.labels().tolist() == sorted(objects.labels)
    for label in objects.labels:
        mesh = meshes.read(label)
        assert volume_of(mesh) == pytest.approx(100**3, rel=1e-5 + close)
        assert np.allclose(mesh.bounds, objects.meshes[label].bounds, atol=1e-3 + 100 * close)
        found = skeletons.read(label)
        assert found.bounds == objects.skeletons[label].bounds
        assert found.attributes["radius"].tolist() == [9, 9]
    for found in (meshes, skeletons):
        assert list(SpatialIndex.of(found.info, VOLUME).query(found.directory)) == list(objects.labels)


@pytest.mark.parametrize("which", ["layer", "sharded_layer"])
def test_files_are_copied_byte_by_byte_without_leftovers(request, which, target, objects):
    source = request.getfixturevalue(which)
    assert copy_objects(source, target).run(progress=False).ok
    check_objects(target, objects)
    for directory in ("m", "s"):
        for name in names_below(f"{target}/{directory}"):
            assert (
                read_file(f"{target}/{directory}", name) == read_file(f"{source}/{directory}", name) or name == "info"
            )
        left = set(names_below(f"{source}/{directory}")) - set(names_below(f"{target}/{directory}"))
        assert left == {"m": {"0-64_0-64_0-64.frags"}, "s": {"5:0-256_0-256_0-2560"}}[directory]
    info = load_info(target)
    assert (info["mesh"], info["skeletons"], info["note"]) == ("m", "s", "kept")


@pytest.mark.filterwarnings("ignore")
def test_files_become_shards_that_cloudvolume_reads(layer, target, objects):
    from cloudvolume import CloudVolume

    report = copy_objects(layer, target, format="sharded", max_labels_per_shard=1, min_chunk=(8, 8, 8)).run(
        progress=False
    )
    assert report.ok
    check_objects(target, objects, close=1e-3)
    assert Meshes(target).shards is not None
    assert len(Meshes(target).shards.numbers()) > 1
    assert Skeletons(target).info["sharding"]["data_encoding"] == "gzip"
    theirs = CloudVolume(target, progress=False)
    mesh = theirs.mesh.get(5)
    mesh = mesh[5] if isinstance(mesh, dict) else mesh
    assert volume_of(mesh) == pytest.approx(100**3, rel=1e-3)
    assert theirs.skeleton.get(5).cable_length() == pytest.approx(100 * 3**0.5)
    assert sorted(theirs.mesh.spatial_index.query(theirs.bounds * theirs.resolution)) == list(objects.labels)


def test_multires_meshes_in_files_are_put_into_shards_with_the_same_bytes(layer, target, objects, tmp_path):
    first = objects.bare_layer(f"file://{tmp_path}/first")
    copy_objects(layer, first, format="sharded", skeletons=False).run(progress=False)
    packed = Meshes(first)
    unpacked = objects.bare_layer(f"file://{tmp_path}/unpacked")
    for label in objects.labels:
        manifest = packed.manifest(label)
        lods = range(len(manifest.levels))
        fragments = b"".join(part for lod in lods for part in packed.fragments(label, manifest, lod))
        write_file(f"{unpacked}/m", str(label), fragments)
        write_file(f"{unpacked}/m", f"{label}.index", manifest.encode())
    import json

    info = {key: value for key, value in packed.info.items() if key != "sharding"}
    write_file(f"{unpacked}/m", "info", json.dumps(info).encode())
    save_info(unpacked, load_info(unpacked) | {"mesh": "m"})
    copy_objects(unpacked, target, format="sharded").run(progress=False)
    assert Meshes(target).info == packed.info
    for number in packed.shards.numbers():
        name = f"m/{number:x}.shard"
        assert kvstore.read_bytes(f"{target}/{name}") == kvstore.read_bytes(f"{first}/{name}")


@pytest.mark.parametrize("bucket_first", [True, False])
def test_a_bucket_gets_plain_files_and_a_disk_readable_ones(layer, objects, tmp_path, bucket_first):
    bucket = objects.bare_layer(f"memory://copy-objects/{bucket_first}")
    copy_objects(layer, bucket).run(progress=False)
    check_objects(bucket, objects)
    assert not [name for name in kvstore.list_names(bucket) if name.endswith(".gz")]
    back = objects.bare_layer(f"file://{tmp_path}/back")
    copy_objects(bucket, back).run(progress=False)
    check_objects(back, objects)


def test_two_copies_in_one_job_do_not_mix(layer, sharded_layer, target, tmp_path, objects):
    other = objects.bare_layer(f"file://{tmp_path}/other")
    for label in objects.labels[1:]:
        kvstore.delete(f"{layer}/s/{label}.gz")
    jobs = [copy_objects(layer, target, format="sharded"), copy_objects(sharded_layer, other, format="sharded")]
    assert merge(jobs).run(progress=False).ok
    check_objects(other, objects, close=1e-3)
    assert Skeletons(target).labels().tolist() == [objects.labels[0]]
    assert Meshes(target).labels().tolist() == sorted(objects.labels)


def test_only_what_was_asked_is_copied(layer, target):
    copy_objects(layer, target, mesh=False).run(progress=False)
    assert "mesh" not in load_info(target)
    assert not list(names_below(f"{target}/m"))
    assert len(Skeletons(target).labels()) == 3


def test_running_again_goes_on_where_it_was_and_gives_the_same_bytes(layer, target, tmp_path):
    def state():
        return {p: p.read_bytes() for p in (tmp_path / "target").rglob("*") if p.is_file()}

    copy_objects(layer, target, format="sharded").run(progress=False)
    before = state()
    assert copy_objects(layer, target, format="sharded").run(progress=False).ok
    assert copy_objects(layer, target, format="sharded").run(progress=False, overwrite=True).ok
    assert state() == before


def test_a_destination_that_is_no_layer_gets_no_info(layer, tmp_path):
    with pytest.raises(DaskflowError):
        copy_objects(layer, tmp_path / "nothing").run(progress=False)
    assert not (tmp_path / "nothing/info").exists()


def test_other_objects_in_the_way_are_not_overwritten(layer, sharded_layer, target):
    copy_objects(sharded_layer, target).run(progress=False)
    before = sorted(names_below(f"{target}/s"))
    with pytest.raises(MetadataMismatchError, match=f"daskflow remove {target} --"):
        copy_objects(layer, target).run(progress=False)
    assert sorted(names_below(f"{target}/s")) == before


def test_a_second_copy_to_a_layer_is_a_job_of_its_own(layer, target):
    for which in ({"skeletons": False}, {"mesh": False}):
        assert copy_objects(layer, target, **which).run(progress=False).ok
    assert {"mesh", "skeletons"} <= load_info(target).keys()
    assert len(jobs_of(target)) == 2


@pytest.mark.parametrize(
    "wrong", [{"mesh": False, "skeletons": False}, {"max_labels_per_shard": 0}, {"lods": -1}, {"max_error": -1}]
)
def test_what_makes_no_sense_is_refused(layer, target, wrong):
    with pytest.raises(ParameterError):
        copy_objects(layer, target, **wrong)


def test_a_source_without_objects_or_the_same_layer_is_refused(target, layer, tmp_path, objects):
    with pytest.raises(ParameterError, match="onto themselves"):
        copy_objects(layer, layer)
    empty = objects.bare_layer(f"file://{tmp_path}/empty")
    with pytest.raises(StoreNotFoundError, match="has no mesh or skeletons"):
        copy_objects(empty, target).run(progress=False)


def test_a_directory_that_the_info_does_not_name_is_copied_under_its_name(layer, target, objects):
    info = load_info(layer)
    save_info(layer, {key: value for key, value in info.items() if key not in ("mesh", "skeletons")})
    with pytest.raises(StoreNotFoundError, match="no mesh or skeletons to copy"):
        copy_objects(layer, target).run(progress=False)
    for name in ("m", "s"):
        assert copy_objects(layer, target, directory=name).run(progress=False).ok
    check_objects(target, objects)
