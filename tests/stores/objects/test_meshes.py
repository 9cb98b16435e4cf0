"""Meshes of a layer in each of the formats, read here and by CloudVolume."""

from __future__ import annotations

import numpy as np
import pytest

from daskflow.errors import CorruptChunkError, ParameterError, StoreError, StoreNotFoundError
from daskflow.stores import kvstore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.layer_objects import Meshes, read_mesh
from daskflow.stores.objects.mesh_files import (
    Level,
    Mesh,
    MultiresManifest,
    encode_draco,
    encode_fragment,
    encode_manifest,
    legacy_info,
    manifest_name,
    multires_info,
)
from daskflow.stores.objects.shards import object_sharding, shard_numbers, write_shard
from daskflow.stores.precomputed_info import load_info, save_info

BOX = Mesh(  # over two cells of 16 voxels along x
    np.array([(x, y, z) for x in (0, 16, 32) for y in (0, 8) for z in (0, 4)], np.float32),
    np.array(
        [(0, 1, 3), (0, 3, 2), (8, 11, 9), (8, 10, 11)]
        + [face for a in (0, 4) for face in ((a, a + 4, a + 5), (a, a + 5, a + 1))]
        + [face for a in (0, 4) for face in ((a + 2, a + 3, a + 7), (a + 2, a + 7, a + 6))]
        + [face for a in (0, 4) for face in ((a, a + 2, a + 6), (a, a + 6, a + 4))]
        + [face for a in (0, 4) for face in ((a + 1, a + 5, a + 7), (a + 1, a + 7, a + 3))],
        np.uint32,
    ),
)
VOXEL = np.array([4, 4, 40], np.float32)
LABELS = (5, 2**40 + 7)


def multires_object(bits=10):
    """Return fragments and manifest: two cells at the finest level, one coarse one with half of the triangles."""
    most, cells, parts = 2**bits - 1, [], []
    for cell in (0, 1):
        inside = BOX.faces[(BOX.vertices[BOX.faces][:, :, 0].mean(axis=1) // 16 == cell)]
        if cell == 1:
            inside = BOX.faces[(BOX.vertices[BOX.faces][:, :, 0].mean(axis=1) > 16)]
        quantised = np.rint((BOX.vertices - (16 * cell, 0, 0)) / 16 * most).clip(0, most)
        used, faces = np.unique(inside, return_inverse=True)
        parts.append(encode_draco(quantised[used], faces.reshape(-1, 3).astype(np.uint32), bits=bits))
        cells.append((cell, 0, 0))
    coarse = encode_draco(np.rint(BOX.vertices / 32 * most), BOX.faces, bits=bits)
    levels = (
        Level(np.array(cells, np.uint32), np.array([len(part) for part in parts], np.uint32), 1.0),
        Level(np.zeros((1, 3), np.uint32), np.array([len(coarse)], np.uint32), 2.0),
    )
    return b"".join(parts) + coarse, MultiresManifest((16, 16, 16), (0, 0, 0), levels).encode()


def write_legacy(with_objects):
    directory = with_objects("mesh", legacy_info(mip=0))
    halves = [BOX.faces[BOX.vertices[BOX.faces][:, :, 0].max(axis=1) <= 16]]
    halves.append(BOX.faces[BOX.vertices[BOX.faces][:, :, 0].max(axis=1) > 16])
    for label in LABELS:
        names = [f"{label}:0:{half}" for half in (0, 1)]
        for name, faces in zip(names, halves, strict=True):
            write_file(directory, name, encode_fragment(Mesh(BOX.vertices * VOXEL, faces)), compression="gzip")
        write_file(directory, manifest_name(label), encode_manifest(names))


def write_unsharded(with_objects):
    directory = with_objects("mesh", multires_info(voxel_size=(4, 4, 40), bits=10, mip=0))
    fragments, manifest = multires_object()
    for label in LABELS:
        write_file(directory, str(label), fragments)
        write_file(directory, f"{label}.index", manifest)


def write_sharded(with_objects):
    sharding = object_sharding(2, min_shards=4)
    directory = with_objects("mesh", multires_info(voxel_size=(4, 4, 40), bits=10, mip=0, sharding=sharding))
    for label in LABELS:
        write_shard(directory, int(shard_numbers([label], sharding)[0]), sharding, {label: multires_object()})


WRITERS = {"legacy": write_legacy, "unsharded": write_unsharded, "sharded": write_sharded}


def volume_of(mesh):
    a, b, c = mesh.vertices.astype(float)[mesh.faces.astype(int)].transpose(1, 0, 2)
    return abs(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.fixture(params=WRITERS)
def written(request, with_objects, layer):
    WRITERS[request.param](with_objects)
    return layer


def test_every_label_is_listed_and_read_as_one_closed_surface(written):
    meshes = Meshes(written)
    assert meshes.labels().tolist() == sorted(LABELS)
    for label in LABELS:
        mesh = meshes.read(label)
        assert len(mesh.vertices) == 12, "vertices of both parts at one place are one"
        quantum = 0 if not meshes.multires else 16 / (2**10 - 1)
        assert np.abs((np.array(mesh.bounds) - (0, 0, 0, 128, 32, 160)) / np.tile(VOXEL, 2)).max() <= quantum / 2 + 1e-5
        assert volume_of(mesh) == pytest.approx(128 * 32 * 160, rel=1e-6 + quantum / 8)
    assert read_mesh(written, 5).vertices.dtype == np.float32
    assert meshes.read(6) is None


@pytest.mark.filterwarnings("ignore")
def test_cloudvolume_reads_the_same_surface(written):
    from cloudvolume import CloudVolume

    mesh = CloudVolume(written, progress=False).mesh.get(5)
    mesh = mesh[5] if isinstance(mesh, dict) else mesh
    assert volume_of(mesh) == pytest.approx(volume_of(read_mesh(written, 5)), rel=1e-4)
    assert len(mesh.faces) == len(BOX.faces)


@pytest.mark.parametrize("lod", [1, -1])
def test_a_coarser_level_is_read_alone(with_objects, layer, lod, monkeypatch):
    write_sharded(with_objects)
    meshes = Meshes(layer)
    manifest = meshes.manifest(5)
    monkeypatch.setattr(meshes.shards, "read_before", spy := Spy(meshes.shards.read_before))
    mesh = meshes.read(5, lod=lod)
    assert spy.spans == [manifest.bytes_of_levels[1]]
    assert volume_of(mesh) == pytest.approx(128 * 32 * 160, rel=1e-2)


class Spy:
    def __init__(self, read):
        self.read, self.spans = read, []

    def __call__(self, label, start, stop):
        self.spans.append(start - stop)
        return self.read(label, start, stop)


def test_a_level_that_is_not_there_is_refused(written):
    with pytest.raises(ParameterError, match="level"):
        read_mesh(written, 5, lod=2)


def test_a_missing_fragment_is_named(with_objects, layer):
    write_legacy(with_objects)
    kvstore.delete(f"{layer}/mesh_dir/5:0:1.gz")
    with pytest.raises(StoreNotFoundError, match="5:0:1"):
        read_mesh(layer, 5)


def test_a_fragment_name_that_leads_out_of_the_layer_is_refused(with_objects, layer):
    directory = with_objects("mesh", legacy_info(mip=0))
    write_file(directory, manifest_name(5), encode_manifest(["../../secret"]))
    with pytest.raises(ParameterError, match="not a safe name"):
        read_mesh(layer, 5)


def test_a_directory_that_leads_out_of_the_layer_is_refused(layer):
    save_info(layer, load_info(layer) | {"mesh": "../other"})
    with pytest.raises(ParameterError, match="not a safe name"):
        Meshes(layer)


def test_a_layer_without_meshes_says_so(layer):
    with pytest.raises(StoreNotFoundError, match="has no mesh"):
        Meshes(layer)


def test_legacy_meshes_need_no_info_of_their_own(with_objects, layer):
    write_legacy(with_objects)
    kvstore.delete(f"{layer}/mesh_dir/info")
    assert len(read_mesh(layer, 5).faces) == len(BOX.faces)


def test_unknown_formats_and_damaged_infos_are_refused(with_objects, layer):
    directory = with_objects("mesh", {"@type": "something_else"})
    with pytest.raises(StoreError, match="something_else"):
        Meshes(layer)
    write_file(directory, "info", b"[]")
    with pytest.raises(StoreError, match="damaged"):
        Meshes(layer)


def test_a_damaged_manifest_is_refused(with_objects, layer):
    write_unsharded(with_objects)
    write_file(f"{layer}/mesh_dir", "5.index", b"short")
    with pytest.raises(CorruptChunkError):
        read_mesh(layer, 5)
