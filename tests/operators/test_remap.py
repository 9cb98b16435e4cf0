import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.operators.segmentation.remap import remap, table_of
from daskflow.stores.opening import open_store
from daskflow.volume import Volume

NAMES = [0, 1, 2, 50, 2**40, 2**63, 2**64 - 1]


def voxels(seed=0, names=NAMES, shape=(6, 7, 8)):
    return np.random.default_rng(seed).choice(np.array(names, np.uint64), shape)


def renamed(array, table, unmapped="zero", offset=0):
    """The slow truth."""

    def name(label):
        if label in table:
            return table[label]
        return 0 if label == 0 or unmapped == "zero" else label + offset

    return np.array([name(int(label)) for label in array.ravel()], np.uint64).reshape(array.shape)


def written(directory, kind, table):
    rows = np.array(sorted(table.items()), np.uint64).reshape(-1, 2)
    path = directory / f"table.{kind.split()[0]}"
    if kind == "npy":
        np.save(path, rows)
    elif kind == "npy unsorted":
        np.save(path, np.concatenate((rows[::-1], rows[:1])))
    elif kind == "json":
        path.write_text(json.dumps({str(old): new for old, new in table.items()}))
    elif kind == "json pairs":
        path.write_text(json.dumps(rows.tolist()))
    else:
        lines = ["old,new"] if kind == "csv headed" else []
        path.write_text("\n".join([*lines, *(f"{old},{new}" for old, new in rows.tolist())]))
    return str(path)


TABLES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES), max_size=6)
BLOCKS = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=25, deadline=None)
@given(TABLES, BLOCKS, st.sampled_from(["keep", "zero"]), st.integers(0, 99))
def test_any_table_in_any_blocks_renames_what_it_names(table, block, unmapped, seed):
    array = voxels(seed)
    volume = Volume.from_array(array, voxel_offset=(-5, 3, 0)).with_block(block)

    result = remap(volume, table=table, unmapped=unmapped)

    expected = renamed(array, table, unmapped)
    assert np.array_equal(result.read(), expected)
    assert np.array_equal(result.data.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("kind", ["npy", "npy unsorted", "json", "json pairs", "csv", "csv headed"])
def test_tables_of_every_kind_of_file_are_the_same(tmp_path, kind):
    table = {2**64 - 1: 1, 1: 2**63, 2: 2**64 - 1, 50: 50}
    array = voxels()

    result = remap(Volume.from_array(array), table=written(tmp_path, kind, table), unmapped="zero")

    assert np.array_equal(result.read(), renamed(array, table))


def test_a_lookup_array_names_every_label_from_zero_on(tmp_path):
    np.save(tmp_path / "names.npy", np.array([9, 8, 7], np.uint32))
    array = voxels(names=[0, 1, 2, 3])

    result = remap(Volume.from_array(array), table=str(tmp_path / "names.npy"), unmapped="keep").read()

    assert np.array_equal(result, np.array([9, 8, 7, 3], np.uint64)[array])


def test_an_unmapped_label_is_an_error_that_names_it_and_the_other_blocks_are_done(tmp_path):
    array = np.ones((8, 4, 4), np.uint32)
    array[6, 1, 2] = 77
    volume = Volume.from_array(array).with_block((4, 4, 4))

    report = (
        remap(volume, table={1: 5}).save(tmp_path / "out", chunk=(4, 4, 4)).run(Threads(1), progress=False, retries=0)
    )

    assert not report.ok
    assert (report.stages[0].done, report.stages[0].failed) == (1, 1)
    assert "label 77" in report.failures[0].message
    assert "4-8_0-4_0-4" in report.failures[0].message


def test_background_stays_unless_the_table_renames_it():
    array = np.array([0, 1], np.uint8).repeat(4).reshape(2, 2, 2)
    volume = Volume.from_array(array)
    assert np.unique(remap(volume, table={1: 3}).read()).tolist() == [0, 3]
    assert np.unique(remap(volume, table={0: 2, 1: 3}).read()).tolist() == [2, 3]


def test_kept_labels_are_moved_out_of_the_way():
    array = voxels(names=[0, 1, 2, 3])

    result = remap(Volume.from_array(array), table={1: 2}, unmapped="keep", offset=2**16).read()

    assert np.array_equal(result, renamed(array, {1: 2}, "keep", 2**16))


def test_sorted_npy_files_are_mapped_and_not_loaded(tmp_path):
    path = written(tmp_path, "npy", {n: n for n in NAMES})
    rows = table_of(path).rows()
    base = rows.keys
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_a_changed_table_makes_another_job(tmp_path):
    from daskflow.errors import ChangedJobError

    path = written(tmp_path, "csv", {1: 2})
    volume = Volume.from_array(np.ones((4, 4, 4), np.uint8))
    remap(volume, table=path).save(tmp_path / "out").run(Threads(1), progress=False)
    written(tmp_path, "csv", {1: 250})
    with pytest.raises(ChangedJobError, match="table"):
        remap(volume, table=path).save(tmp_path / "out").run(Threads(1), progress=False)


def test_names_that_do_not_fit_are_refused_before_anything_runs(tmp_path):
    volume = Volume.from_array(np.ones((4, 4, 4), np.uint8))

    with pytest.raises(ParameterError, match=r"300, which uint8 .* dtype='uint64'"):
        remap(volume, table={1: 300}).save(tmp_path / "out").run(Threads(1), progress=False)

    report = remap(volume, table={1: 300}, dtype="uint16").save(tmp_path / "wide").run(Threads(1), progress=False)
    assert report.ok
    assert open_store(tmp_path / "wide").read(volume.box).max() == 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((3, 3), int), "two columns"),
        (np.zeros((3, 2)), "integers"),
        (np.array([[1, -2]]), "negative"),
        (np.array([[1, 2], [1, 3]]), "label 1 both 2 and 3"),
        ({1: -1}, "2\\^64"),
        ({1: "a"}, "pairs"),
        ("table.txt", r"\.npy"),
    ],
)
def test_what_is_no_table_is_refused(content, message):
    with pytest.raises(ParameterError, match=message):
        remap(Volume.from_array(np.ones((2, 2, 2), np.uint8)), table=content)


@pytest.mark.parametrize(("name", "content"), [("a.json", "{"), ("a.csv", "1,2\nx,3"), ("a.npy", "no array")])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    volume = remap(Volume.from_array(np.ones((2, 2, 2), np.uint8)), table=str(tmp_path / name))
    with pytest.raises(ParameterError, match=name.replace(".", r"\.")):
        volume.save(tmp_path / "out").run(Threads(1), progress=False)


def test_images_and_floats_are_refused():
    with pytest.raises(ParameterError, match="float32"):
        remap(Volume.from_array(np.ones((2, 2, 2), np.float32)), table={1: 2})
    with pytest.raises(ParameterError, match="image"):
        remap(Volume.from_array(np.ones((2, 2, 2), np.uint8), layer_type="image"), table={1: 2})
