"""Levels in a layer are what the whole volume downsampled is, however the work is cut and whatever ends a run."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import AlignmentError, AlreadyStoredError, ChangedJobError, MetadataMismatchError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.jobs import status
from daskflow.jobs.directory import JobDirectory
from daskflow.layers.remove import plan_removal
from daskflow.operators.stores.downsample import downsample
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling
from daskflow.operators.stores.downsample.levels import levels_within, sensible_levels
from daskflow.stores.opening import create_store

OFFSET = (3, -5, 7)


def noise(shape=(20, 45, 75), dtype="uint8", seed=0, few=False):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.random(shape).astype(dtype)
    return random.integers(0, 5 if few else 255, shape).astype(dtype)


def stored(array, url, *, layer_type="image", voxel_offset=OFFSET, **options):
    volume = daskflow.open(array, voxel_offset=voxel_offset, voxel_size=(40, 4, 4), layer_type=layer_type)
    volume.save(url, **{"chunk": (8, 16, 16), **options}).run(progress=False)
    return daskflow.open(url)


def expected(array, levels, *, factor=(1, 2, 2), method="mean", sparse=False):
    return Downsampling(factor, method, sparse).run(Carried(array), levels, dtype=array.dtype)[0]


def check_levels(url, array, levels, **how):
    for mip, wanted in enumerate(expected(array, levels, **how), start=1):
        np.testing.assert_array_equal(daskflow.open(url, mip=mip).read(), wanted)


def files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.name != "provenance"
    }


LAYERS = {
    "plain": ("layer", {}),
    "gzip": ("layer", {"compression": "gzip"}),
    "sharded": ("layer", {"shard": (16, 32, 32)}),
    "zarr": ("layer.zarr", {}),
    "sharded zarr": ("layer.zarr", {"shard": (16, 32, 32)}),
}


@pytest.mark.parametrize("memory", ["512MB", "20kB"])
@pytest.mark.parametrize("layer", LAYERS)
def test_levels_of_every_format_are_those_of_the_whole(layer, memory, tmp_path):
    name, options = LAYERS[layer]
    array = noise()
    volume = stored(array, tmp_path / name, **options)
    job = downsample(volume, levels=3, memory=memory)
    assert (len(job.stages) > 1) == (memory == "20kB")
    assert job.run(progress=False).ok
    check_levels(tmp_path / name, array, 3)


@pytest.mark.parametrize(
    ("dtype", "layer_type", "method", "factor"),
    [
        ("uint64", "segmentation", "mode", (1, 2, 2)),
        ("uint32", "segmentation", "mode", (2, 2, 2)),
        ("float32", "image", "mean", (1, 2, 2)),
        ("uint16", "image", "mean", (2, 2, 2)),
        ("int16", "image", "mean", (1, 3, 3)),
        ("uint8", "image", "max", (1, 2, 2)),
        ("uint8", "image", "min", (2, 1, 1)),
        ("uint8", "image", "stride", (1, 4, 4)),
    ],
)
def test_levels_by_every_method_in_any_number_of_passes(dtype, layer_type, method, factor, tmp_path):
    array = noise(dtype=dtype, few=layer_type == "segmentation")
    stored(array, tmp_path / "layer", layer_type=layer_type)
    options = {} if method in ("mean", "mode") else {"method": method}
    downsample(daskflow.open(tmp_path / "layer"), levels=3, factor=factor, memory="20kB", **options).run(progress=False)
    check_levels(tmp_path / "layer", array, 3, factor=factor, method=method)


@pytest.mark.parametrize("method", ["mean", "mode"])
def test_sparse_levels_leave_zeros_out_over_all_passes(method, tmp_path):
    array = noise(few=True) * (np.random.default_rng(1).random((20, 45, 75)) > 0.6).astype(np.uint8)
    volume = stored(array, tmp_path / "layer")
    downsample(volume, levels=3, method=method, sparse=True, memory="20kB").run(progress=False)
    check_levels(tmp_path / "layer", array, 3, method=method, sparse=True)


def test_channels_are_downsampled_each_for_itself(tmp_path):
    array = noise((3, 8, 20, 20))
    downsample(stored(array, tmp_path / "layer"), levels=2).run(progress=False)
    found = daskflow.open(tmp_path / "layer", mip=2).read()
    for channel in range(3):
        np.testing.assert_array_equal(found[channel], expected(array[channel], 2)[1])


def test_levels_lie_where_neuroglancer_expects_them(tmp_path):
    array = np.ones((50, 200, 300), np.uint8)
    volume = daskflow.open(array, voxel_offset=(3, 5, 7), voxel_size=(40, 4, 4), layer_type="image")
    volume.save(tmp_path / "layer", chunk=(32, 64, 64)).run(progress=False)
    downsample(daskflow.open(tmp_path / "layer"), levels=1).run(progress=False)
    scale = json.loads((tmp_path / "layer/info").read_text())["scales"][1]
    assert (scale["key"], scale["size"], scale["voxel_offset"]) == ("8_8_40", [150, 100, 50], [3, 2, 3])
    assert scale["chunk_sizes"] == [[64, 64, 32]]


def test_ome_zarr_levels_are_scaled_and_placed(tmp_path):
    downsample(stored(noise(), tmp_path / "a.zarr", voxel_offset=(0, 4, 8)), levels=2).run(progress=False)
    attributes = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]
    scales = [d["coordinateTransformations"] for d in attributes["ome"]["multiscales"][0]["datasets"]]
    assert [scale[0]["scale"] for scale in scales] == [[40, 4, 4], [40, 8, 8], [40, 16, 16]]
    assert [scale[1]["translation"] for scale in scales] == [[0, 16, 32], [0, 18, 34], [0, 22, 38]]


def test_cloudvolume_reads_every_level(tmp_path):
    cloudvolume = pytest.importorskip("cloudvolume")
    for name, options in {"gz": {"compression": "gzip"}, "shards": {"shard": (16, 32, 32)}}.items():
        array = noise()
        downsample(stored(array, tmp_path / name, **options), levels=3).run(progress=False)
        for mip, wanted in enumerate(expected(array, 3), start=1):
            layer = cloudvolume.CloudVolume(f"file://{tmp_path / name}", mip=mip, progress=False)
            np.testing.assert_array_equal(layer[:][..., 0].T, wanted)


def test_levels_are_laid_out_as_the_volume_unless_said(tmp_path):
    downsample(stored(noise(), tmp_path / "layer", compression="gzip"), levels=1).run(progress=False)
    assert all(path.suffix == ".gz" for path in (tmp_path / "layer/8_8_40").iterdir())
    volume = daskflow.open(tmp_path / "layer", mip=1)
    downsample(volume, levels=1, chunk=(8, 8, 8), compression="none", encoding="png").run(progress=False)
    scale = json.loads((tmp_path / "layer/info").read_text())["scales"][2]
    assert (scale["chunk_sizes"], scale["encoding"]) == ([[8, 8, 8]], "png")


def test_lossy_levels_are_made_of_what_they_were_before_encoding(tmp_path):
    array = noise((8, 64, 64))
    for name, memory in (("at-once", "512MB"), ("in-passes", "1kB")):
        stored(array, tmp_path / name)
        downsample(daskflow.open(tmp_path / name), levels=3, method="max", encoding="jpeg", memory=memory).run(
            progress=False
        )
    for mip in (1, 2, 3):
        first, second = (daskflow.open(tmp_path / name, mip=mip).read() for name in ("at-once", "in-passes"))
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("background", [0, 7])
@pytest.mark.parametrize("layer", LAYERS)
def test_chunks_of_background_are_left_out(layer, background, tmp_path):
    name, options = LAYERS[layer]
    array = np.full((16, 128, 128), background, np.uint8)
    array[:, :64, :64] = 200
    volume = stored(array, tmp_path / name, **options)
    job = downsample(volume, levels=2, delete_background=True, background=background, memory="10kB")
    assert job.run(progress=False).ok
    for mip, wanted in enumerate(expected(array, 2), start=1):
        np.testing.assert_array_equal(daskflow.open(tmp_path / name, mip=mip).read(), wanted)
    assert job.verify(progress=False).ok


def test_negative_labels_are_refused(tmp_path):
    labels = np.full((8, 32, 64), 3, np.int32)
    labels[1, 2, ::8] = -4
    for method in ("auto", "mode", "max"):
        layer = tmp_path / f"{method}.zarr"
        store = create_store(layer, VolumeSpec(BoundingBox((0, 0, 0), labels.shape), labels.dtype))
        store.write(store.spec.box, labels)
        volume = daskflow.open(layer, layer_type="segmentation")
        job = downsample(volume, levels=1, chunk=(8, 8, 8), memory="1kB", method=method)
        report = job.run(progress=False, retries=0)
        assert report.failures[0].message.startswith("the label -4 at (1, 2, ")
        assert {failure.message.partition(" at ")[0] for failure in report.failures} == {"the label -4"}


def test_only_chunks_with_something_in_them_have_files(tmp_path):
    array = np.zeros((8, 64, 64), np.uint8)
    array[:, :32, :32] = 200
    downsample(stored(array, tmp_path / "layer", voxel_offset=(0, 0, 0)), levels=1, delete_background=True).run(
        progress=False
    )
    assert [path.name for path in (tmp_path / "layer/8_8_40").iterdir()] == ["0-16_0-16_0-8"]


def test_a_missing_chunk_is_an_error_unless_said(tmp_path):
    array = noise((8, 32, 32))
    stored(array, tmp_path / "layer", voxel_offset=(0, 0, 0))
    (tmp_path / "layer/4_4_40/16-32_0-16_0-8").unlink()
    report = downsample(daskflow.open(tmp_path / "layer"), levels=1, chunk=(8, 8, 8), memory="1kB").run(
        progress=False, retries=0
    )
    assert not report.ok
    assert "16-32_0-16_0-8" in report.failures[0].message
    array[:, :16, 16:] = 0
    filled = daskflow.open(tmp_path / "layer", fill_missing=True)
    shutil.rmtree(tmp_path / "layer.mip1-1.daskflow")
    report = downsample(filled, levels=1, chunk=(8, 8, 8), overwrite=True).run(progress=False)
    assert report.counts["missing_chunks"] == 1
    check_levels(tmp_path / "layer", array, 1)


@pytest.mark.parametrize("memory", ["512MB", "20kB"])
def test_a_box_touches_only_whole_chunks_around_it(memory, tmp_path):
    array = noise((16, 256, 256))
    stored(array, tmp_path / "layer")
    job = downsample(daskflow.open(tmp_path / "layer"), levels=2, start=(11, 60, 60), stop=(12, 70, 61), memory=memory)
    job.run(progress=False)
    assert "11-19_59-123_7-71" in job.directory
    for mip, wanted in enumerate(expected(array, 2), start=1):
        found = daskflow.open(tmp_path / "layer", mip=mip, fill_missing=True)
        total = 2**mip
        touched = np.zeros(wanted.shape, bool)
        touched[8:16, 64 // total : 128 // total, : 64 // total] = True
        np.testing.assert_array_equal(found.read(), np.where(touched, wanted, 0))


def test_a_second_run_does_nothing_and_adds_no_provenance(tmp_path):
    volume = stored(noise(), tmp_path / "layer")
    downsample(volume, levels=2).run(progress=False)
    before = files(tmp_path / "layer")
    provenance = (tmp_path / "layer/provenance").read_text()
    report = downsample(daskflow.open(tmp_path / "layer"), levels=2).run(progress=False)
    assert report.already_done
    assert files(tmp_path / "layer") == before
    assert (tmp_path / "layer/provenance").read_text() == provenance
    last = json.loads(provenance)["processing"][-1]["method"]
    assert (last["mip"], last["mips"]) == (1, [1, 2])
    assert len(json.loads(provenance)["processing"]) == 2


@pytest.mark.parametrize("memory", ["512MB", "20kB"])
@pytest.mark.parametrize("options", [{}, {"shard": (16, 32, 32)}])
def test_a_run_that_is_stopped_goes_on_and_ends_with_the_same_bytes(options, memory, tmp_path, monkeypatch):
    from daskflow.operators.stores.downsample.passes import Pass

    array = noise((40, 90, 90))
    for name in ("once", "twice"):
        stored(array, tmp_path / name, **options)
    job = downsample(daskflow.open(tmp_path / "once"), levels=3, memory=memory)
    job.run(progress=False)
    total = sum(len(stage.grid) for stage in job.stages)
    written = []
    whole = Pass.write

    def failing(self, box, outputs):
        if len(written) >= total // 2:
            raise OSError("the machine went away")
        written.append(box)
        return whole(self, box, outputs)

    monkeypatch.setattr(Pass, "write", failing)
    with daskflow.connect("threads", threads=1) as threads:
        again = downsample(daskflow.open(tmp_path / "twice"), levels=3, memory=memory)
        assert not again.run(threads, progress=False, retries=0).ok
        monkeypatch.setattr(Pass, "write", lambda *a: written.append(a[1]) or whole(*a))
        written.clear()
        assert again.run(threads, progress=False, retry_failed=True).ok
    assert len(written) == total - total // 2
    assert files(tmp_path / "once") == files(tmp_path / "twice")


def test_a_level_that_differs_is_refused_and_one_that_agrees_is_written_into(tmp_path):
    array = noise()
    volume = stored(array, tmp_path / "layer")
    downsample(volume, levels=1, chunk=(4, 8, 8)).run(progress=False)
    with pytest.raises(MetadataMismatchError, match="chunk_sizes"):
        downsample(daskflow.open(tmp_path / "layer"), levels=2, chunk=(8, 16, 16)).run(progress=False)
    with pytest.raises(
        AlreadyStoredError, match=r"mip 1 of \S+layer has more than 20 chunks .*by the job in \S+mip1-1.*--overwrite"
    ):
        downsample(daskflow.open(tmp_path / "layer"), levels=2).run(progress=False)
    downsample(daskflow.open(tmp_path / "layer"), levels=2, overwrite=True).run(progress=False)
    assert daskflow.open(tmp_path / "layer", mip=1).spec.chunk == (4, 8, 8)
    check_levels(tmp_path / "layer", array, 2)


def test_a_volume_with_no_layer_to_write_into_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="save it with levels="):
        downsample(daskflow.open(noise()))
    volume = stored(noise(), tmp_path / "layer")
    with pytest.raises(ParameterError, match="save it with levels="):
        downsample(volume.astype("uint16"))
    daskflow.open(noise()).save(tmp_path / "a.npy").run(progress=False)
    with pytest.raises(ParameterError, match="hold no levels"):
        downsample(daskflow.open(tmp_path / "a.npy"))
    with pytest.raises(ParameterError, match="levels 0"):
        downsample(volume, levels=0)


def test_labels_that_call_themselves_an_image_are_not_averaged_by_mistake(tmp_path):
    stored(noise(dtype="uint64"), tmp_path / "layer", layer_type="image")
    with pytest.raises(ParameterError, match="method='mode'"):
        downsample(daskflow.open(tmp_path / "layer"))


def test_levels_that_would_not_shrink_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="at most 3 levels"):
        downsample(stored(noise((9, 8, 8)), tmp_path / "layer"), levels=4)


def test_a_crop_stands_for_its_box(tmp_path):
    volume = stored(noise((16, 256, 256)), tmp_path / "layer")
    job = downsample(volume.crop(BoundingBox((11, 60, 60), (12, 70, 61))), levels=2)
    assert "11-19_59-123_7-71" in job.directory


@pytest.mark.parametrize(
    ("chunk", "dtype", "factor", "levels"),  # xyz
    [
        ((64, 64, 64), "uint8", (2, 2, 1), 6),
        ((64, 64, 64), "uint64", (2, 2, 1), 5),
        ((128, 128, 64), "uint8", (2, 2, 2), 3),
        ((128, 128, 64), "uint64", (2, 2, 2), 2),
    ],
)
def test_as_many_levels_fit_in_a_pass_of_three_and_a_half_gigabytes_as_in_igneous(chunk, dtype, factor, levels):
    found = levels_within(3_500_000_000, chunk[::-1], np.dtype(dtype).itemsize, factor[::-1])
    assert found == levels


def test_levels_by_default_end_where_a_chunk_holds_the_volume():
    assert sensible_levels((50, 200, 300), (64, 64, 64), (1, 2, 2)) == 3
    assert sensible_levels((50, 200, 300), (64, 64, 64), (2, 2, 2)) == 3
    assert sensible_levels((500, 200, 300), (64, 64, 64), (2, 2, 2)) == 3
    assert sensible_levels((5, 20, 30), (64, 64, 64), (1, 2, 2)) == 1


def test_shards_of_several_levels_come_out_of_one_job(tmp_path):
    array = noise((64, 256, 256))
    stored(array, tmp_path / "layer", voxel_offset=(0, 0, 0), chunk=(16, 16, 16))
    job = downsample(daskflow.open(tmp_path / "layer"), levels=3, shard="auto", memory="64kB")
    assert len(job.stages) == 3
    job.run(progress=False)
    check_levels(tmp_path / "layer", array, 3)
    counts = [len(list((tmp_path / "layer" / f"{4 * 2**k}_{4 * 2**k}_40").iterdir())) for k in (1, 2, 3)]
    assert counts == [16, 4, 1]


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 50), st.integers(1, 50)),
    offset=st.tuples(*[st.integers(-9, 9)] * 3),
    factor=st.sampled_from([(1, 2, 2), (2, 2, 2), (1, 3, 2)]),
    levels=st.integers(1, 4),
    memory=st.integers(1, 10**6),
    shard=st.sampled_from([None, (8, 16, 16), "auto"]),
    kind=st.sampled_from([("uint8", "image"), ("uint32", "segmentation"), ("float32", "image")]),
    name=st.sampled_from(["layer", "layer.zarr"]),
    block=st.sampled_from([None, (64, 128, 128)]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_volume_in_any_passes_and_shards_is_the_whole_downsampled(
    shape, offset, factor, levels, memory, shard, kind, name, block
):
    dtype, layer_type = kind
    shape = (shape[0], *(max(n, f**levels) for n, f in zip(shape[1:], factor[1:], strict=True)))  # or levels stay equal
    array = noise(shape, dtype, few=layer_type == "segmentation")
    method = "mode" if layer_type == "segmentation" else "mean"
    with tempfile.TemporaryDirectory() as directory:
        options = {"memory": str(memory), "factor": factor, "levels": levels, "shard": shard}
        volume = stored(array, f"{directory}/{name}", layer_type=layer_type, voxel_offset=offset, chunk=(4, 8, 8))
        if not (name == "layer.zarr" and shard == "auto"):
            downsample(volume, **options).run(progress=False)
            check_levels(f"{directory}/{name}", array, levels, factor=factor, method=method)
        source = daskflow.open(array, voxel_offset=offset, voxel_size=(40, 4, 4), layer_type=layer_type)
        try:
            job = source.save(f"{directory}/saved-{name}", chunk=(4, 8, 8), block=block, **options)
        except AlignmentError:
            return
        job.run(progress=False)
        np.testing.assert_array_equal(daskflow.open(f"{directory}/saved-{name}").read(), array)
        check_levels(f"{directory}/saved-{name}", array, levels, factor=factor, method=method)


def test_levels_that_were_made_otherwise_are_refused_until_they_are_removed(tmp_path):
    volume = stored(noise(), tmp_path / "layer")
    downsample(volume, levels=2, method="max").run(progress=False)
    with pytest.raises(MetadataMismatchError, match=r"mip 1 of .* made otherwise.*daskflow remove"):
        downsample(daskflow.open(tmp_path / "layer"), levels=1).run(progress=False)


def test_labels_are_not_averaged(tmp_path):
    volume = daskflow.open(noise().astype("uint32"), layer_type="segmentation")
    with pytest.raises(ParameterError, match="mean of labels"):
        volume.save(tmp_path / "layer", levels=1, method="mean")


def test_levels_of_another_factor_can_be_made_after_the_command_that_the_refusal_names(tmp_path):
    volume = stored(noise(), tmp_path / "layer")
    downsample(volume, levels=2).run(progress=False)
    url = str(tmp_path / "layer")
    other = downsample(daskflow.open(url), levels=1, factor=(2, 2, 2))
    with pytest.raises(MetadataMismatchError, match=r"daskflow remove .*layer --mip 1,2 --forget$"):
        other.run(progress=False)
    for job in tmp_path.glob("layer.*daskflow"):
        shutil.rmtree(job)
    with pytest.raises(MetadataMismatchError, match=r"daskflow remove .*layer --mip 1,2 --forget"):
        downsample(daskflow.open(url), levels=1, factor=(2, 2, 2)).run(progress=False)
    plan_removal(url, mips=(1, 2), forget=True).run()
    downsample(daskflow.open(url), levels=1, factor=(2, 2, 2)).run(progress=False)
    (level,) = expected(noise(), 1, factor=(2, 2, 2))
    np.testing.assert_array_equal(daskflow.open(url, mip=1), level)


def test_another_way_to_make_the_same_levels_says_how_to_start_over(tmp_path):
    downsample(stored(noise(), tmp_path / "layer"), levels=2).run(progress=False)
    with pytest.raises(ChangedJobError, match="start over with --overwrite"):
        downsample(daskflow.open(tmp_path / "layer"), levels=2, method="max").run(progress=False)


def test_a_refused_start_over_leaves_the_record_of_what_is_there(tmp_path):
    job = downsample(stored(noise(), tmp_path / "layer"), levels=1)
    job.run(progress=False)
    before = daskflow.open(tmp_path / "layer", mip=1).read()
    other = {"levels": 1, "factor": (2, 2, 2)}
    for said in ({"overwrite": True}, {}):
        with pytest.raises(MetadataMismatchError):
            downsample(daskflow.open(tmp_path / "layer"), **other, **said).run(progress=False, overwrite=True)
        assert status(job.directory).state == "finished"
        with pytest.raises(ChangedJobError):
            downsample(daskflow.open(tmp_path / "layer"), levels=1, method="max").run(progress=False)
    JobDirectory(job.directory).clear()  # as where an overwriting run was killed at once
    for refused in ("check", "run"):
        with pytest.raises(AlreadyStoredError):
            getattr(downsample(daskflow.open(tmp_path / "layer"), levels=1, method="max"), refused)()
    np.testing.assert_array_equal(daskflow.open(tmp_path / "layer", mip=1).read(), before)
