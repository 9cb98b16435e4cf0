"""Which boxes a line works on: regions, grids, files; what is refused."""

import numpy as np
import pytest

import daskflow
from daskflow.errors import AlignmentError, MetadataMismatchError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.volume import BoxTask, ListedTasks

REGION = BoundingBox((0, -8, 0), (8, 8, 20))


def boxes(tasks):
    """The boxes of tasks, taken a few at a time."""
    return [str(task.box) for window in tasks.windows(lambda: 3) for task in window]


@pytest.fixture
def volume(tmp_path):
    """A layer of 64^3 voxels that begins at 0."""
    daskflow.open(np.ones((64, 64, 64), np.uint8), voxel_size=(40, 4, 4)).save(tmp_path / "em").run(progress=False)
    return str(tmp_path / "em")


def test_a_grid_goes_through_x_first():
    for how in ({"roi_size": (128, 128, 128)}, {"roi_stop": (128, 128, 128)}, {"grid_size": (2, 2, 2)}):
        found = boxes(daskflow.generate_tasks(roi_start=(0, 0, 0), chunk_size=(64, 64, 64), **how))
        assert len(found) == 8
        assert found[:2] == ["0-64_0-64_0-64", "0-64_0-64_64-128"]
        assert found[-1] == "64-128_64-128_64-128"


@pytest.mark.parametrize(
    ("how", "count", "last"),
    [
        ({}, 8, "32-64_32-64_32-64"),
        ({"roi_size": (32, 32, 32)}, 1, "0-32_0-32_0-32"),
        ({"roi_start": (0, 0, 0), "roi_stop": (32, 32, 32)}, 1, "0-32_0-32_0-32"),
        ({"roi_start": (32, 32, 0)}, 2, "32-64_32-64_32-64"),
        ({"roi_size": (60, 60, 60)}, 8, "32-64_32-64_32-64"),
        ({"roi_size": (60, 60, 60), "respect_chunk_size": False}, 8, "32-60_32-60_32-60"),
    ],
)
def test_what_a_region_does_not_say_is_the_volumes(volume, how, count, last):
    found = boxes(daskflow.generate_tasks(volume_path=volume, chunk_size=(32, 32, 32), **how))
    assert (len(found), found[-1]) == (count, last)


def test_a_region_grown_to_blocks_is_covered():
    how = {"roi_start": (3, 3, 3), "roi_size": (32, 32, 32), "chunk_size": (32, 32, 32)}
    found = boxes(daskflow.generate_tasks(**how, aligned_block_size=(16, 16, 16)))
    assert (len(found), found[0], found[-1]) == (8, "0-32_0-32_0-32", "32-64_32-64_32-64")
    with pytest.raises(ParameterError, match="not a multiple"):
        daskflow.generate_tasks(**how, aligned_block_size=(12, 16, 16))


def test_some_tasks_of_a_grid(monkeypatch):
    how = {"chunk_size": (64, 64, 64), "grid_size": (2, 2, 2)}
    whole = boxes(daskflow.generate_tasks(**how))
    assert boxes(daskflow.generate_tasks(**how, task_index_start=0, task_index_stop=2)) == whole[:2]
    assert boxes(daskflow.generate_tasks(**how, task_index_start=6)) == whole[6:]
    monkeypatch.setenv("DISBATCH_REPEAT_INDEX", "5")
    assert boxes(daskflow.generate_tasks(**how, disbatch=True)) == [whole[5]]
    assert daskflow.generate_tasks(**how, task_index_start=6).region == BoundingBox((64, 64, 0), (128, 128, 128))


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({}, "chunk_size"),
        ({"chunk_size": (8, 8, 8)}, "region is not known"),
        ({"chunk_size": (8, 8, 8), "grid_size": (1, 1, 1), "stride": (4, 8, 8)}, "must not overlap"),
        ({"chunk_size": (8, 8, 8), "roi_stop": (8, 8, 8), "roi_size": (8, 8, 8)}, "drop one"),
        ({"chunk_size": (8, 8, 8), "grid_size": (1, 1, 1), "task_index_start": 1}, "no task"),
        ({"bounding_box": "0-4_0-4_0-4", "chunk_size": (8, 8, 8)}, "not the chunk_size"),
        ({"chunk_size": (8, 8, 8), "grid_size": (1, 1, 1), "disbatch": True}, "DISBATCH_REPEAT_INDEX"),
    ],
)
def test_what_makes_no_grid_is_refused(how, complaint, monkeypatch):
    monkeypatch.delenv("DISBATCH_REPEAT_INDEX", raising=False)
    with pytest.raises(ParameterError, match=complaint):
        daskflow.generate_tasks(**how)


@pytest.mark.parametrize("name", ["tasks", "tasks.npy", "tasks.txt"])
def test_a_file_of_boxes(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    how = {"roi_start": (-64, 0, 0), "chunk_size": (64, 64, 64), "grid_size": (2, 2, 2)}
    tasks = daskflow.generate_tasks(**how, file_path=name)
    tasks.publish(print)
    stored = name if "." in name else "tasks.npy"
    if stored.endswith("npy"):
        assert np.load(stored)[0].tolist() == [-64, 0, 0, 0, 64, 64]
    whole = boxes(tasks)
    assert boxes(daskflow.fetch_task_from_file(file_path=stored)) == whole
    assert boxes(daskflow.fetch_task_from_file(file_path=stored, job_index=2, granularity=3)) == whole[6:]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert boxes(daskflow.fetch_task_from_file(file_path=stored, slurm_job_array=True)) == whole[1:2]
    with pytest.raises(ParameterError, match="none for job 3"):
        daskflow.fetch_task_from_file(file_path=stored, job_index=3, granularity=3)
    with pytest.raises(ParameterError, match="delete it"):
        daskflow.generate_tasks(**{**how, "grid_size": (1, 1, 1)}, file_path=name).publish(print)


def test_a_file_of_something_else_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 5), int))
    with pytest.raises(ParameterError, match="rows of six integers"):
        daskflow.fetch_task_from_file(file_path=str(tmp_path / "a.npy"))
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object))
    with pytest.raises(ParameterError, match="cannot be read"):
        daskflow.fetch_task_from_file(file_path=str(tmp_path / "b.npy"))
    for text, complaint in (("", "holds no boxes"), ("9-0_0-9_0-9", "c.txt: box is inverted")):
        (tmp_path / "c.txt").write_text(text)
        with pytest.raises(ParameterError, match=complaint):
            daskflow.fetch_task_from_file(file_path=str(tmp_path / "c.txt"))


def test_a_box_that_is_listed_twice_is_one_task(tmp_path):
    (tmp_path / "tasks.txt").write_text("0-9_0-9_0-9\n9-18_0-9_0-9\n0-9_0-9_0-9\n")
    tasks = daskflow.fetch_task_from_file(file_path=str(tmp_path / "tasks.txt"))
    assert boxes(tasks) == ["0-9_0-9_0-9", "9-18_0-9_0-9"]


def test_one_box():
    assert boxes(daskflow.create_bbox(start=(0, 1, 2), stop=(3, 4, 5))) == ["0-3_1-4_2-5"]
    assert boxes(daskflow.create_bbox(start=(0, 1, 2), size=(3, 3, 3))) == ["0-3_1-4_2-5"]
    with pytest.raises(ParameterError, match="one of stop and size"):
        daskflow.create_bbox(start=(0, 1, 2))


@pytest.mark.parametrize(
    ("how", "patches", "task", "margin", "block"),
    [
        (
            {
                "output_patch_size": (16, 96, 96),
                "input_patch_size": (20, 128, 128),
                "output_patch_overlap": (6, 32, 32),
                "max_ram_size": 14,
                "channel_num": 3,
                "max_mip": 5,
            },
            (27, 23, 23),
            (264, 1440, 1440),
            (8, 48, 48),
            (264, 180, 180),
        ),
        (
            {"output_patch_size": (20, 256, 256), "max_ram_size": 14, "channel_num": 3, "mip": 1, "max_mip": 6},
            (11, 18, 18),
            (100, 2176, 2176),
            (10, 128, 128),
            (50, 272, 272),
        ),
        (
            {"output_patch_size": (20, 256, 256)},
            (26, 21, 21),
            (250, 2560, 2560),
            (10, 128, 128),
            (250, 320, 320),
        ),
    ],
)
def test_sizes_of_a_run_are_those_of_chunkflow(how, patches, task, margin, block):
    tasks = daskflow.setup_env(volume_start=(0, 0, 0), volume_size=(400, 8192, 8192), layer_path="out", **how)
    sizes = tasks.sizes
    assert (sizes.patches, sizes.task, sizes.margin, sizes.block) == (patches, task, margin, block)
    if how.get("mip"):
        assert len(boxes(tasks)) == 16
        assert boxes(tasks)[-1] == "300-400_2176-4352_2176-4352"


@pytest.mark.parametrize(
    ("left_out", "added", "tiles"), [(None, None, True), (2, None, False), (2, "0-9_0-8_8-16", False), (3, None, False)]
)
def test_boxes_that_tile_a_box_are_known_in_any_order(left_out, added, tiles):
    found = [box for number, box in enumerate(BlockGrid(REGION, (8, 8, 8))) if number != left_out]
    found += [BoundingBox.from_string(added)] if added else []
    assert ListedTasks(tuple(found[::-1])).tiled == (REGION if tiles else None)


def test_a_run_gets_its_layers_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = {"volume_start": (0, 0, 0), "volume_size": (100, 4000, 4000), "layer_path": "out", "mip": 1, "max_mip": 6}
    how |= {"output_patch_size": (20, 256, 256), "max_ram_size": 14, "channel_num": 3}
    said = []
    daskflow.setup_env(**how).publish(said.append)
    daskflow.setup_env(**how).publish(said.append)
    assert "--expand-margin-size 10 128 128" in said[0]
    level = daskflow.open("out", mip=1, fill_missing=True)
    assert (level.box.shape, level.spec.chunk, level.channels) == ((100, 2000, 2000), (50, 272, 272), 3)
    assert level.voxel_size == (40, 8, 8)
    coarse = daskflow.open("out/thumbnail", mip=6, fill_missing=True)
    assert (coarse.box.shape, coarse.spec.chunk, coarse.channels) == ((100, 63, 63), (50, 34, 34), None)
    with pytest.raises(MetadataMismatchError):
        daskflow.setup_env(**{**how, "channel_num": 4}).publish(said.append)
    daskflow.setup_env(**{**how, "channel_num": 4}, overwrite_info=True).publish(said.append)
    assert daskflow.open("out", mip=1, fill_missing=True).channels == 4
    with pytest.raises(ParameterError):
        daskflow.setup_env(**how, encoding="compressed_segmentation", overwrite_info=True).publish(said.append)
    assert daskflow.open("out", mip=1, fill_missing=True).channels == 4


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({}, "volume_size"),
        ({"volume_size": (9, 9, 9), "output_patch_size": (20, 256, 128)}, "square"),
        ({"volume_size": (9, 9, 9), "max_mip": 12}, "change max_ram_size"),
    ],
)
def test_a_run_that_cannot_be_is_refused(how, complaint):
    given = {"volume_start": (0, 0, 0), "output_patch_size": (20, 256, 256), "layer_path": "out"}
    with pytest.raises(ParameterError, match=complaint):
        daskflow.setup_env(**{**given, **how})


TASK = BoxTask(BoundingBox((0, 0, 0), (32, 32, 32)))


def test_a_task_is_skipped_by_a_file(tmp_path):
    prefix = f"{tmp_path}/flags/"
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done") is TASK
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done", mode="missing") is None
    daskflow.mark_complete(TASK, prefix=prefix, suffix=".done").action(None)
    assert (tmp_path / "flags" / "0-32_0-32_0-32.done").read_bytes() == b""
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done") is None
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done", mode="empty") is None
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done", mode="missing") is TASK
    assert daskflow.skip_task_by_file(TASK, prefix=prefix, suffix=".done", adjust_size=1) is TASK


def test_a_task_is_skipped_where_all_chunks_are_stored(volume, tmp_path):
    half = daskflow.open(np.ones((32, 32, 32), np.uint8), voxel_size=(8, 8, 8))
    daskflow.save(half, tmp_path / "half", chunk=(16, 16, 16), bounds=(0, 0, 0, 64, 32, 32)).run(progress=False)

    def skipped(path, start, stop):
        return daskflow.skip_task_by_blocks_in_volume(BoxTask(BoundingBox(start, stop)), volume_path=path) is None

    assert skipped(volume, (0, 0, 0), (64, 64, 64))
    assert skipped(str(tmp_path / "half"), (0, 0, 0), (32, 32, 32))
    assert not skipped(str(tmp_path / "half"), (0, 0, 0), (64, 32, 32))
    assert not skipped(str(tmp_path / "half"), (32, 0, 0), (64, 32, 32))
    assert not skipped(str(tmp_path / "none"), (32, 0, 0), (64, 32, 32))
    with pytest.raises(AlignmentError, match="aligned-block-size"):
        skipped(str(tmp_path / "half"), (0, 0, 0), (8, 32, 32))


def test_a_task_is_skipped_where_a_volume_is_zero(tmp_path):
    array = np.zeros((64, 64, 64), np.uint8)
    array[40, 40, 63] = 1
    em = daskflow.open(array)
    prefix = f"{tmp_path}/zero_"
    other = BoxTask(BoundingBox((32, 32, 32), (70, 64, 64)))
    assert daskflow.skip_all_zero(other, em, prefix=prefix) is other
    assert daskflow.skip_all_zero(TASK, em, prefix=prefix, suffix=".h5") is None
    assert [path.name for path in tmp_path.iterdir()] == ["zero_0-32_0-32_0-32.h5"]


def test_a_box_is_adjusted():
    moved = daskflow.adjust_bbox(TASK, corner_offset=(-1, -2, -3, 1, 2, 3))
    assert str(moved.box) == "-1-33_-2-34_-3-35"
    with pytest.raises(ParameterError, match="six numbers"):
        daskflow.adjust_bbox(TASK, corner_offset=(1, 2, 3))
