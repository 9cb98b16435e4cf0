"""Removing parts of a layer: what is said to go goes, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from daskflow.errors import AlignmentError, LockedJobError, ParameterError, StoreAccessError, StoreNotFoundError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.jobs.directory import JobDirectory
from daskflow.jobs.lock import Lease
from daskflow.layers.remove import plan_removal
from daskflow.operators.stores.downsample import downsample
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.objects.files import write_file
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.precomputed_info import load_info, save_info
from daskflow.volume import Volume
from daskflow.volume.stage import Output

SPEC = VolumeSpec(
    BoundingBox((-8, 0, 4), (24, 32, 36)), np.dtype("uint64"), voxel_size=(8.0, 8.0, 8.0), layer_type="segmentation"
)
COARSE = SPEC.replace(box=BoundingBox((-4, 0, 2), (12, 16, 18)), voxel_size=(16.0, 16.0, 16.0))


def make(url, *, format="precomputed", **layout):  # noqa: A002
    for mip, spec in enumerate((SPEC, COARSE)):
        store = create_store(url, spec, mip=mip, format=format, layout=Layout(**{"chunk": (8, 8, 8), **layout}))
        for box in BlockGrid(spec.box, store.spec.write_unit):
            store.write(box, np.full(box.shape, 7, np.uint64))
    return url


@pytest.fixture(params=["plain", "gzip", "sharded", "zarr", "memory"])
def layer(request, tmp_path):
    if request.param == "memory":
        yield make("memory://removal/layer")
        kvstore.delete_tree("memory://removal")
        return
    how = {"plain": {}, "gzip": {"compression": "gzip"}, "sharded": {"shard": (16, 16, 16)}}.get(request.param)
    if how is None:
        yield make(f"{tmp_path}/layer.zarr", format="ome-zarr")
    else:
        yield make(f"{tmp_path}/layer", **how)


@pytest.fixture
def plain(tmp_path):
    write_file(f"{tmp_path}/layer", "provenance", b"{}")
    return make(f"{tmp_path}/layer")


def files(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def missing(url, mip, box):
    store = open_store(url, mip=mip, fill_missing=True)
    return not store.read(box).any()


def test_a_level_goes_and_the_other_stays(layer):
    before = open_store(layer, mip=0).read(SPEC.box)
    removal = plan_removal(layer, mips=[1])
    assert removal.run() == removal.count > 0
    assert missing(layer, 1, COARSE.box)
    assert np.array_equal(open_store(layer, mip=0).read(SPEC.box), before)
    assert plan_removal(layer, mips=[1]).count == 0


def test_planning_removes_nothing(plain, tmp_path):
    before = files(tmp_path)
    text = str(plan_removal(plain, mips=[0, 1]))
    assert "mip 0" in text
    assert "64 files" in text
    assert files(tmp_path) == before


def test_both_levels_leave_info_and_provenance_alone(plain, tmp_path):
    info = (tmp_path / "layer/info").read_bytes()
    plan_removal(plain, mips=[0, 1]).run()
    assert files(tmp_path / "layer") == ["info", "provenance"]
    assert (tmp_path / "layer/info").read_bytes() == info
    assert sorted(p.name for p in (tmp_path / "layer").iterdir()) == ["info", "provenance"]


def test_a_removed_level_can_be_written_again(plain):
    plan_removal(plain, mips=[1]).run()
    store = create_store(plain, COARSE, mip=1, layout=Layout(chunk=(8, 8, 8)))
    store.write(COARSE.box, np.full(COARSE.box.shape, 9, np.uint64))
    assert (open_store(plain, mip=1).read(COARSE.box) == 9).all()


def test_a_box_takes_the_chunks_inside_it_at_every_level(plain):
    box = BoundingBox((-8, 0, 4), (8, 16, 36))
    removal = plan_removal(plain, mips=[0, 1], box=box)
    assert removal.count == 2 * 2 * 4 + 1 * 1 * 2
    removal.run()
    assert missing(plain, 0, box)
    rest = open_store(plain, fill_missing=True).read(SPEC.box)
    rest[box.slices(SPEC.box)] = 7
    assert (rest == 7).all()


def test_a_box_to_the_end_of_the_volume_takes_the_last_chunks(plain):
    box = BoundingBox((8, 16, 20), (24, 32, 36))
    assert plan_removal(plain, mips=[1, 0], box=box).count == 8 + 1


def test_a_box_that_cuts_chunks_is_refused_with_the_nearest(plain):
    with pytest.raises(AlignmentError, match="nearest is -8-8_0-8_4-12"):
        plan_removal(plain, mips=[0], box=BoundingBox((-8, 0, 4), (3, 8, 12)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mips": [2]}, {"mips": [-1]}, {"box": SPEC.box}, {"forget": True, "mesh": False},
        {"mips": [0], "box": BoundingBox((100, 100, 100), (108, 108, 108))}, {"mips": [0], "forget": True},
        {"mips": [0, 1], "forget": True}, {"mips": [1], "forget": True, "box": SPEC.box},
    ],
)  # fmt: skip
def test_nonsense_is_refused(plain, wrong):
    with pytest.raises(ParameterError):
        plan_removal(plain, **wrong)


def test_a_box_of_shards_is_refused(tmp_path):
    layer = make(f"{tmp_path}/layer", shard=(16, 16, 16))
    with pytest.raises(ParameterError, match="whole mips"):
        plan_removal(layer, mips=[0], box=BoundingBox((-8, 0, 4), (8, 16, 20)))


def test_a_forgotten_level_is_gone_from_the_info(plain):
    save_info(plain, load_info(plain) | {"note": "kept"})
    plan_removal(plain, mips=[1], forget=True).run()
    info = load_info(plain)
    assert [scale["key"] for scale in info["scales"]] == ["8_8_8"]
    assert info["note"] == "kept"


def test_meshes_and_skeletons_go_with_their_keys(plain, tmp_path):
    for key in ("mesh", "skeletons"):
        for name in ("info", "5", "5:0"):
            write_file(f"{plain}/{key}_dir", name, b"{}")
    save_info(plain, load_info(plain) | {"mesh": "mesh_dir", "skeletons": "skeletons_dir", "note": "kept"})
    removal = plan_removal(plain, mesh=True)
    assert removal.count == 3
    removal.run()
    assert not (tmp_path / "layer/mesh_dir").exists()
    assert len(files(tmp_path / "layer/skeletons_dir")) == 3
    assert "mesh" not in load_info(plain)
    assert load_info(plain)["note"] == "kept"
    plan_removal(plain, skeletons=True).run()
    assert "skeletons" not in load_info(plain)
    with pytest.raises(StoreNotFoundError):
        plan_removal(plain, skeletons=True)


@pytest.mark.parametrize("name", ["../other", ".", "8_8_8", "8_8_8/below"])
def test_a_directory_of_meshes_that_is_none_is_left_alone(plain, tmp_path, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/5").write_bytes(b"mine")
    save_info(plain, load_info(plain) | {"mesh": name})
    before = files(tmp_path)
    with pytest.raises(ParameterError):
        plan_removal(plain, mesh=True)
    assert files(tmp_path) == before


def test_links_are_not_followed(plain, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "5").write_bytes(b"mine")
    (elsewhere / "0-8_0-8_0-8").write_bytes(b"mine")
    (tmp_path / "layer/mesh_dir").symlink_to(elsewhere)
    save_info(plain, load_info(plain) | {"mesh": "mesh_dir"})
    with pytest.raises(StoreAccessError, match="link"):
        plan_removal(plain, mesh=True)
    (tmp_path / "layer/8_8_8").rename(tmp_path / "moved")
    (tmp_path / "layer/8_8_8").symlink_to(elsewhere)
    with pytest.raises(StoreAccessError, match="link"):
        plan_removal(plain, mips=[0])
    assert len(list(elsewhere.iterdir())) == 2


def test_files_of_others_beside_the_chunks_stay(plain, tmp_path):
    stats = tmp_path / "layer/8_8_8/stats"
    stats.mkdir()
    (stats / "voxel_counts.im").write_bytes(b"counts")
    (tmp_path / "layer/8_8_8/notes.txt").write_text("mine")
    (tmp_path / "layer/8_8_8/8-0_0-8_0-8").write_text("no chunk")
    plan_removal(plain, mips=[0, 1]).run()
    assert files(tmp_path / "layer/8_8_8") == ["8-0_0-8_0-8", "notes.txt", "stats/voxel_counts.im"]


def test_a_damaged_info_removes_nothing(plain, tmp_path):
    (tmp_path / "layer/info").write_text(json.dumps({"scales": 5}))
    before = files(tmp_path)
    with pytest.raises(Exception, match="info"):
        plan_removal(plain, mips=[0])
    assert files(tmp_path) == before


def labels(shape=(32, 32, 32), value=3):
    return Volume.from_array(np.full(shape, value, np.uint32), voxel_size=(8, 8, 8), layer_type="segmentation")


def jobs(tmp_path):
    return sorted(path.name for path in tmp_path.glob("*.daskflow"))


def test_what_was_removed_is_made_again_by_the_same_command(tmp_path, threads):
    job = labels().save(tmp_path / "layer", chunk=(16, 16, 16))
    job.run(threads, progress=False)
    plan_removal(f"{tmp_path}/layer", mips=[0]).run()
    assert jobs(tmp_path) == []
    assert job.run(threads, progress=False).ok
    assert (open_store(f"{tmp_path}/layer").read(labels().box) == 3).all()


def test_a_removed_level_can_be_made_with_other_parameters(tmp_path, threads):
    labels().save(tmp_path / "layer", chunk=(8, 8, 8)).run(threads, progress=False)

    def level(**how):
        return downsample(Volume.from_store(open_store(f"{tmp_path}/layer")), levels=1, **how)

    level(factor=(1, 2, 2)).run(threads, progress=False)
    assert jobs(tmp_path) == ["layer.daskflow", "layer.mip1-1.daskflow"]
    removal = plan_removal(f"{tmp_path}/layer", mips=[1], forget=True)
    assert "layer.mip1-1.daskflow" in str(removal)
    removal.run()
    assert jobs(tmp_path) == ["layer.daskflow"], "the job of the other level is kept"
    assert level(factor=(2, 2, 2)).run(threads, progress=False).ok
    assert open_store(f"{tmp_path}/layer", mip=1).spec.voxel_size == (16, 16, 16)


def test_the_job_of_removed_meshes_goes_and_others_stay(plain, tmp_path):
    write_file(f"{plain}/mesh_dir", "info", b"{}")
    save_info(plain, load_info(plain) | {"mesh": "mesh_dir"})
    for directory in (f"{plain}/mesh_dir.daskflow", f"{plain}/skeletons.daskflow"):
        made = Output(directory.removesuffix(".daskflow"), directory.rpartition("/")[2][:4], layer=f"{plain}")
        JobDirectory(directory).claim("objects", {}, None, outputs=[made.placed()])
    plan_removal(plain, mesh=True).run()
    assert not (tmp_path / "layer/mesh_dir.daskflow").exists()
    assert (tmp_path / "layer/skeletons.daskflow").exists()


def test_nothing_is_removed_while_a_job_writes_it(tmp_path, threads):
    labels().save(tmp_path / "layer", chunk=(16, 16, 16)).run(threads, progress=False)
    before = files(tmp_path / "layer")
    with Lease(f"file://{tmp_path}/layer.daskflow/lock"), pytest.raises(LockedJobError):
        plan_removal(f"{tmp_path}/layer", mips=[0]).run()
    assert files(tmp_path / "layer") == before
    assert jobs(tmp_path) == ["layer.daskflow"]


def test_jobs_of_other_layers_with_a_longer_name_stay(tmp_path, threads):
    for name in ("layer", "layer.second"):
        labels().save(f"precomputed://{tmp_path}/{name}", chunk=(16, 16, 16)).run(threads, progress=False)
    plan_removal(f"{tmp_path}/layer", mips=[0]).run()
    assert jobs(tmp_path) == ["layer.second.daskflow"]


def test_the_job_that_made_part_of_a_level_in_a_bucket_goes(threads):
    url = "memory://removal-of-parts/layer"
    try:
        labels().save(url, chunk=(8, 8, 8)).run(threads, progress=False)
        job = downsample(Volume.from_store(open_store(url)), levels=1, start=(0, 0, 0), stop=(8, 16, 16))
        job.run(threads, progress=False)
        removal = plan_removal(url, mips=[1])
        assert list(removal.jobs) == [job.directory]
        removal.run()
        assert job.run(threads, progress=False).stages[0].skipped == 0
    finally:
        kvstore.delete_tree("memory://removal-of-parts")
