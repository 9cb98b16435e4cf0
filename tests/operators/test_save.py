from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import tensorstore as ts

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import MetadataMismatchError, ParameterError, StoreNotFoundError
from daskflow.jobs.report import causes
from daskflow.layers.info import layer_info
from daskflow.layers.verify import verify
from daskflow.stores.base import Layout
from daskflow.stores.opening import formats, open_store
from daskflow.volume import Volume
from daskflow.volume.registry import load_operator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cloudvolume import CloudVolume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

SIZE = (40, 70, 50)
PLACE = {"voxel_size": (40, 4, 4), "voxel_offset": (-8, 100, 7)}
FEW = np.random.default_rng(0).integers(0, 5, SIZE)


@pytest.fixture(scope="module")
def threads():
    with Threads(2) as pool:
        yield pool


def layer(path, array, threads, **options):
    layer_type = options.pop("layer_type", "image")
    volume = daskflow.open(array, layer_type=layer_type, **PLACE)
    report = daskflow.save(volume, path, chunk=(16, 32, 32), **options).run(threads, progress=False)
    assert report.ok
    return path


def scale(path):
    return json.loads((path / "info").read_text())["scales"][0]


def by_cloudvolume(path):
    return np.asarray(CloudVolume(f"file://{path}", progress=False)[:])[..., 0].T


ENCODINGS = {
    "raw": ("uint16", {}),
    "png": ("uint8", {"quality": 4}),
    "jpeg": ("uint8", {"quality": 95}),
    "jxl": ("uint8", {"quality": 100, "effort": 1}),
    "compressed_segmentation": ("uint64", {}),
    "crackle": ("uint64", {}),
    "compresso": ("uint32", {}),
    "fpzip": ("float32", {}),
    "zfpc": ("float32", {}),
}


@pytest.mark.parametrize("shard", [None, "auto"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_copy_in_every_encoding_is_the_same_with_clipped_edges(tmp_path, threads, encoding, shard):
    dtype, options = ENCODINGS[encoding]
    array = FEW.astype(dtype)
    source = layer(tmp_path / "source", array, threads)
    copied = daskflow.save(
        daskflow.open(source), tmp_path / "copy", chunk=(32, 16, 16), encoding=encoding, shard=shard, **options
    )
    assert copied.run(threads, progress=False).ok
    found = daskflow.open(tmp_path / "copy")
    assert found.box == daskflow.open(source).box
    np.testing.assert_array_equal(by_cloudvolume(tmp_path / "copy"), found.read())
    np.testing.assert_allclose(found.read(), array, atol=12 if encoding == "jpeg" else 0)
    assert (shard is None) == ("55-57_164-170_24-32" in {p.name for p in (tmp_path / "copy" / "4_4_40").iterdir()})


@pytest.mark.parametrize("shard", [None, "auto"])
@pytest.mark.parametrize("encoding", ["raw", "png", "jxl", "crackle"])
def test_a_rechunked_copy_is_read_by_cloudvolume_and_tensorstore_alike(tmp_path, threads, encoding, shard):
    array = FEW.astype(np.uint8)
    source = layer(tmp_path / "source", array, threads, encoding=encoding, quality=100 if encoding == "jxl" else None)
    copied = daskflow.save(daskflow.open(source), tmp_path / "copy", chunk=(8, 16, 16), shard=shard)
    assert copied.run(threads, progress=False).ok
    np.testing.assert_array_equal(by_cloudvolume(tmp_path / "copy"), array)
    if encoding in ("raw", "png"):
        place = {"driver": "file", "path": f"{tmp_path}/copy"}
        other = ts.open({"driver": "neuroglancer_precomputed", "kvstore": place}, open=True).result()
        np.testing.assert_array_equal(other[..., 0].read().result().T, array)


@pytest.mark.parametrize("compress", ["gzip", "br"])
def test_compressed_files_of_cloudvolume_are_copied_and_never_read_as_zeros(tmp_path, threads, compress):
    array = np.random.default_rng(0).integers(1, 255, SIZE, np.uint8)
    CloudVolume.from_numpy(
        array.T, vol_path=f"file://{tmp_path}/source", resolution=(4, 4, 40), chunk_size=(32, 32, 16), compress=compress
    )
    volume = daskflow.open(tmp_path / "source")
    np.testing.assert_array_equal(volume.read(), array)
    assert daskflow.save(volume, tmp_path / "copy").run(threads, progress=False).ok
    np.testing.assert_array_equal(by_cloudvolume(tmp_path / "copy"), array)


@pytest.mark.parametrize("encoding", ["raw", "crackle"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_missing_chunk_stops_its_block_alone_and_fill_missing_none(tmp_path, threads, encoding, compression):
    array = (FEW + 1).astype(np.uint8)
    options = {"encoding": encoding, "compression": compression}
    source = layer(tmp_path / "source", array, threads, **options)
    (lost,) = (source / "4_4_40").glob("7-39_100-132_-8-8*")
    lost.unlink()
    report = daskflow.save(daskflow.open(source), tmp_path / "copy", **options, block=(16, 32, 32)).run(
        threads, progress=False
    )
    assert (report.state, sum(stage.failed for stage in report.stages)) == ("failed", 1)
    (failure,) = report.failures
    assert "7-39_100-132_-8-8" in failure.message
    assert "fill_missing" in failure.message
    rest = open_store(tmp_path / "copy", fill_missing=True)
    wanted = array.copy()
    wanted[:16, :32, :32] = 0
    np.testing.assert_array_equal(rest.read(rest.spec.box), wanted)

    filled = daskflow.save(daskflow.open(source, fill_missing=True), tmp_path / "filled", block=(16, 32, 32))
    report = filled.run(threads, progress=False)
    assert report.ok
    assert report.counts == {"missing_chunks": 1}
    np.testing.assert_array_equal(daskflow.open(tmp_path / "filled").read(), wanted)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"encoding": "crackle"}, {"encoding": "crackle"}),
        ({"encoding": "png", "quality": 3}, {"encoding": "png", "png_level": 3}),
        (
            {"encoding": "jxl", "quality": 100, "effort": 2},
            {"encoding": "jxl", "jxl_quality": 100, "jxl_effort": 2},
        ),
        ({"encoding": "jxl", "quality": 90}, {"encoding": "raw"}),
        ({"encoding": "jpeg"}, {"encoding": "raw"}),
    ],
    ids=str,
)
def test_a_copy_keeps_the_encoding_unless_it_would_lose_values_again(tmp_path, threads, options, kept):
    source = layer(tmp_path / "source", FEW.astype(np.uint8), threads, **options)
    for name, volume in (("copy", daskflow.open(source)), ("part", daskflow.open(source)[:20])):
        assert daskflow.save(volume, tmp_path / name).run(threads, progress=False).ok
        assert kept.items() <= scale(tmp_path / name).items()
        assert daskflow.save(volume, tmp_path / name).run(threads, progress=False).ok
    stated = daskflow.save(daskflow.open(source), tmp_path / "stated", encoding="raw")
    assert stated.run(threads, progress=False).ok
    assert scale(tmp_path / "stated")["encoding"] == "raw"


def test_a_copy_into_a_layer_that_exists_takes_its_encoding(tmp_path, threads):
    source = layer(tmp_path / "source", FEW.astype(np.uint8), threads, encoding="png")
    other = layer(tmp_path / "other", FEW.astype(np.uint8), threads, encoding="crackle")
    (tmp_path / "other.daskflow").rename(tmp_path / "before")
    assert daskflow.save(daskflow.open(source), other, overwrite=True).run(threads, progress=False).ok
    assert scale(other)["encoding"] == "crackle"


def test_labels_and_floats_are_refused_where_an_encoding_cannot_hold_them(tmp_path, threads):
    wide = daskflow.open(FEW.astype(np.uint64) + 2**40, layer_type="segmentation")
    for volume, encoding, message in (
        (wide, "jpeg", "jpeg cannot hold uint64"),
        (wide, "png", "png cannot hold uint64"),
        (daskflow.open(FEW.astype(np.float32)), "crackle", "crackle cannot hold float32"),
        (daskflow.open(FEW.astype(np.uint8), layer_type="segmentation"), "jpeg", "labels cannot bear"),
    ):
        with pytest.raises(ParameterError, match=message):
            daskflow.save(volume, tmp_path / "refused", encoding=encoding)
        assert not (tmp_path / "refused").exists()
    kept = layer(tmp_path / "wide", FEW.astype(np.uint64) + 2**40, threads, encoding="crackle")
    np.testing.assert_array_equal(by_cloudvolume(kept), FEW + 2**40)


def test_the_layout_of_a_layer_makes_one_alike(tmp_path, threads):
    source = layer(tmp_path / "source", FEW.astype(np.uint8), threads, encoding="jxl", quality=100, effort=4)
    wanted = Layout(chunk=(16, 32, 32), encoding="jxl", quality=100, effort=4, compression="none")
    assert open_store(source).layout == wanted


def test_a_copy_is_noted_in_its_source_if_asked(tmp_path):
    daskflow.open(np.ones((8, 8, 8), np.uint8)).save(tmp_path / "source").run(progress=False)
    source = daskflow.open(tmp_path / "source")
    source.save(tmp_path / "quiet").run(progress=False)
    before = json.loads((tmp_path / "source/provenance").read_text())
    source.save(tmp_path / "copy", note_source=True).run(progress=False)
    after = json.loads((tmp_path / "source/provenance").read_text())
    assert len(after["processing"]) == len(before["processing"]) + 1
    assert "copy" in json.dumps(after["processing"][-1])


def saved_kind(path):
    return daskflow.open(path).layer_type


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
@pytest.mark.parametrize("dtype", ["uint32", "uint64", "int32"])
def test_wide_integers_without_a_stated_kind_are_saved_as_labels(tmp_path, name, dtype):
    volume = Volume.from_array(np.ones((4, 8, 8), dtype))
    job = daskflow.save(volume, tmp_path / name, levels=1)
    assert f"{dtype} is saved as segmentation, as integers of" in str(job.plan())
    assert f"{dtype} is saved as segmentation" in job.plan()._repr_html_()
    assert job.run(progress=False).ok
    assert saved_kind(tmp_path / name) == "segmentation"
    assert saved_kind(tmp_path / name) == daskflow.open(tmp_path / name, mip=1).layer_type
    if name == "layer":
        scale = json.loads((tmp_path / name / "info").read_text())["scales"][0]
        assert scale["encoding"] == ("raw" if dtype == "int32" else "compressed_segmentation")


def test_a_stated_kind_and_that_of_the_layer_there_win(tmp_path):
    stated = Volume.from_array(np.full((4, 8, 8), -3, np.int32), layer_type="image")
    job = daskflow.save(stated, tmp_path / "layer")
    assert "is saved as" not in str(job.plan())
    assert job.run(progress=False).ok
    assert saved_kind(tmp_path / "layer") == "image"
    again = daskflow.save(Volume.from_array(np.full((4, 8, 8), -4, np.int32)), tmp_path / "layer", mip=0)
    assert "int32 is saved as image, as the layer that is there says" in str(again.plan())
    narrow = daskflow.save(Volume.from_array(np.ones((4, 8, 8), np.uint16)), tmp_path / "narrow")
    assert narrow.run(progress=False).ok
    assert saved_kind(tmp_path / "narrow") == "image"


def test_the_help_names_every_format_that_is_written():
    said = load_operator("save").function.__doc__
    assert [f.name for f in formats() if f.store.written and f.name not in said] == []


@pytest.mark.parametrize("name", ["layer", "a.zarr", "b.ome.zarr"])
def test_voxels_of_unknown_size_in_a_layer_of_known_size_are_told_how_to_state_it(tmp_path, name):
    array = np.ones((8, 16, 16), np.uint8)
    daskflow.open(array, layer_type="image", voxel_size=(40, 4, 4)).save(tmp_path / name).run(progress=False)
    shutil.rmtree(next(tmp_path.glob("*.daskflow")))
    with pytest.raises(MetadataMismatchError, match=r"is unknown; .*--voxel-size 40 4 4"):
        daskflow.open(array, layer_type="image").save(tmp_path / name).run(progress=False)


def test_negative_labels_in_several_blocks_are_one_cause(tmp_path):
    labels = np.ones((8, 8, 32), np.int32)
    labels[3, 2, 8::16] = -4
    job = daskflow.open(labels, layer_type="segmentation").save(tmp_path / "a.zarr", chunk=(8, 8, 8), block=(8, 8, 8))
    report = job.run(progress=False, retries=0)
    assert len(report.failures) == 2
    (cause,) = causes(report.failures)
    assert cause.startswith("2 blocks")


@pytest.mark.parametrize("name", ["layer", "a.zarr", "b.ome.zarr"])
def test_chunks_of_background_are_left_out_and_read_as_what_they_were(tmp_path, name):
    array = np.zeros((8, 16, 32), np.uint8)
    array[..., 8:24] = 5
    array[0, 0, 16] = 6
    volume = daskflow.open(array, layer_type="image", voxel_size=(40, 4, 4))
    levels = 0 if name == "a.zarr" else 1
    more = {"delete_background": True, "background": 5, "levels": levels, "method": "max"}
    job = volume.save(tmp_path / name, chunk=(8, 8, 8), factor=(1, 1, 2), **more)
    assert job.run(progress=False).ok
    assert job.verify(progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / name).read(), array)
    if levels:
        np.testing.assert_array_equal(
            daskflow.open(tmp_path / name, mip=1).read(), array.reshape(8, 16, 16, 2).max(axis=3)
        )
    level = layer_info(tmp_path / name).levels[0]
    assert level.encoding.endswith("without chunks of 5")
    assert level.expected - level.stored == 3
    with pytest.raises(ParameterError, match="cannot hold 300"):
        volume.save(tmp_path / "other", delete_background=True, background=300)


def test_one_channel_goes_to_a_layer_that_says_nothing_of_channels(tmp_path):
    options = {"voxel_size": (40, 4, 4), "volume_size": (4, 8, 8), "block_size": (4, 8, 8), "data_type": "float32"}
    daskflow.create_info(volume_path=tmp_path / "layer", **options).run(progress=False)
    array = np.random.default_rng(0).random((1, 4, 8, 8), np.float32)
    volume = daskflow.open(array, voxel_size=(40, 4, 4))
    assert daskflow.save_precomputed(volume, volume_path=tmp_path / "layer").run(progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer").read().ravel(), array.ravel())


def test_a_negative_mip_counts_from_the_coarsest_level_that_is_there(tmp_path, threads):
    place = layer(tmp_path / "layer", FEW.astype(np.uint8), threads, levels=2)
    coarsest = daskflow.open(place, mip=-1)
    assert (coarsest.stored.mip, coarsest.box) == (2, daskflow.open(place, mip=2).box)
    assert daskflow.open(place, mip=-3).stored.mip == 0
    with pytest.raises(StoreNotFoundError, match="no mip -4; it has 3 mips"):
        daskflow.open(place, mip=-4)
    with pytest.raises(ParameterError, match="mip -1 of what is written must be at least 0"):
        coarsest.save(tmp_path / "copy", mip=-1)
    assert daskflow.downsample(coarsest, levels=1).run(threads, progress=False).ok
    assert daskflow.open(place, mip=-1).stored.mip == 3
    report = verify(place, mip=-1, progress=False)
    assert [stage.name for stage in report.stages] == ["chunks"]
    assert report.ok


@pytest.mark.parametrize(
    ("encoding", "compression", "held"),
    [
        ("raw", None, "gzip"),
        ("raw", "none", "raw"),
        ("compressed_segmentation", None, "gzip"),
        ("crackle", None, "gzip"),
        ("png", None, "raw"),
        ("jxl", None, "raw"),
    ],
)
def test_new_shards_hold_gzip_where_that_makes_them_smaller(tmp_path, threads, encoding, compression, held):
    dtype, kind = ("uint8", "image") if encoding in ("png", "jxl") else ("uint32", "segmentation")
    quality = 100 if encoding == "jxl" else None
    options = {"layer_type": kind, "encoding": encoding, "compression": compression, "quality": quality}
    place = layer(tmp_path / "layer", FEW.astype(dtype), threads, shard=(32, 64, 64), **options)
    assert scale(place)["sharding"]["data_encoding"] == held
    np.testing.assert_array_equal(by_cloudvolume(place), FEW)
    np.testing.assert_array_equal(daskflow.open(place).read(), FEW)
    assert (
        daskflow.open(place)
        .save(tmp_path / "again", chunk=(16, 32, 32), shard=(32, 64, 64))
        .run(threads, progress=False)
        .ok
    )
    assert scale(tmp_path / "again") == scale(place) or compression == "none"
