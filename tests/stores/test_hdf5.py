from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import (
    CorruptChunkError,
    GeometryError,
    MissingChunkError,
    ParameterError,
    StoreNotFoundError,
    UnknownFormatError,
)
from daskflow.geometry import LAYER_TYPES, BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.counting import counting
from daskflow.stores.opening import check_file, open_store, write_file
from daskflow.testing.stores import boxes_in, triples, voxels

SPEC = VolumeSpec(
    BoundingBox((-3, 5, 7), (9, 20, 30)), np.dtype("uint8"), voxel_size=(40.0, 4.0, 4.0), layer_type="image"
)


def save(path, spec, array=None, **layout):
    array = voxels(spec) if array is None else array
    write_file(path, spec, lambda box: array[(..., *box.slices(spec.box))], layout=Layout(**layout))
    return array


@given(
    data=st.data(),
    size=triples(1, 12),
    start=triples(-9, 9),
    chunk=triples(1, 9),
    channels=st.sampled_from((None, 1, 3)),
    dtype=st.sampled_from(("uint8", "bool", "float16", "uint64", "float64", "int16")),
    voxel_size=st.tuples(*[st.sampled_from((1.0, 4.0, 33.3))] * 3),
    layer_type=st.sampled_from((None, *LAYER_TYPES)),
    compression=st.sampled_from(("gzip", "none")),
    dataset=st.sampled_from(("", ":volumes/raw")),
)
def test_what_is_written_is_read_with_its_place_and_meaning(
    tmp_path_factory, data, size, start, chunk, channels, dtype, voxel_size, layer_type, compression, dataset
):
    names = tuple("abc"[: channels or 0])
    box = BoundingBox.from_size(start, size)
    spec = VolumeSpec(box, dtype, channels, voxel_size, layer_type=layer_type, channel_names=names)
    if layer_type == "segmentation" and dtype in ("float16", "float64"):
        spec = spec.replace(layer_type="image")
    path = f"{tmp_path_factory.mktemp('h5')}/a.h5{dataset}"
    array = save(path, spec, compression=compression, chunk=chunk)
    store = open_store(path)
    assert store.spec.replace(chunk=None) == spec
    assert store.spec.chunk == tuple(min(c, s) for c, s in zip(chunk, size, strict=True))
    part = data.draw(boxes_in(box))
    found = store.read(part)
    np.testing.assert_array_equal(found, array[(..., *part.slices(box))])
    assert found.flags.c_contiguous


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("level", [None, 9])
def test_h5py_reads_chunkflow_layout(tmp_path, compression, level):
    spec = SPEC.replace(dtype="uint32", layer_type="segmentation")
    array = save(tmp_path / "a.h5", spec, voxels(spec) % 5, compression=compression, chunk=(4, 5, 6), quality=level)
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == ["main", "unique_nonzeros", "voxel_offset", "voxel_size"]
        np.testing.assert_array_equal(file["main"], array)
        np.testing.assert_array_equal(file["voxel_offset"], (-3, 5, 7))
        np.testing.assert_array_equal(file["voxel_size"], (40, 4, 4))
        np.testing.assert_array_equal(file["unique_nonzeros"], (1, 2, 3, 4))
        assert file["voxel_size"].dtype.kind == "i"
        assert file["main"].attrs["layer_type"] == "segmentation"
        assert file["main"].chunks == (4, 5, 6)
        assert file["main"].compression == (None if compression == "none" else "gzip")


def test_a_dataset_other_than_main_is_written_as_cremi_has_it(tmp_path):
    array = save(f"{tmp_path}/a.h5:volumes/labels/neuron_ids", SPEC)
    with h5py.File(tmp_path / "a.h5") as file:
        labels = file["volumes/labels/neuron_ids"]
        np.testing.assert_array_equal(labels, array)
        np.testing.assert_array_equal(labels.attrs["resolution"], (40, 4, 4))
        np.testing.assert_array_equal(labels.attrs["offset"], (-120, 20, 28))


def test_other_datasets_of_the_file_are_kept(tmp_path):
    raw = save(f"{tmp_path}/a.h5:volumes/raw", SPEC)
    main = save(tmp_path / "a.h5", SPEC.replace(layer_type="segmentation"))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["volumes"].attrs["sample"] = "A"
        file["notes"] = np.arange(3)
    changed = np.zeros(SPEC.shape, "u1")
    write_file(tmp_path / "a.h5", SPEC, lambda box: changed[box.slices(SPEC.box)], dataset="volumes/raw")
    for name, expected in (("volumes/raw", changed), ("main", main)):
        np.testing.assert_array_equal(open_store(tmp_path / "a.h5", dataset=name).read(SPEC.box), expected)
    assert raw.any()
    save(tmp_path / "a.h5", SPEC, changed)
    with h5py.File(tmp_path / "a.h5") as file:
        assert not file["main"][()].any()
        assert "unique_nonzeros" not in file
        assert file["volumes"].attrs["sample"] == "A"
        assert file["notes"][()].tolist() == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_a_file_of_another_ending_takes_a_dataset(tmp_path):
    array = voxels(SPEC)
    write_file(tmp_path / "a.dat", SPEC, lambda box: array[box.slices(SPEC.box)], format="hdf5", dataset="raw")
    np.testing.assert_array_equal(open_store(tmp_path / "a.dat", dataset="raw").read(SPEC.box), array)


@pytest.mark.parametrize("name", ["volumes", "volumes/raw/more"])
def test_a_dataset_takes_no_group_away(tmp_path, name):
    save(f"{tmp_path}/a.h5:volumes/raw", SPEC)
    with pytest.raises(ParameterError, match="choose another name"):
        check_file(tmp_path / "a.h5", SPEC, dataset=name)
    with pytest.raises(ParameterError, match="choose another name"):
        save(f"{tmp_path}/a.h5:{name}", SPEC)


@pytest.fixture
def cremi(tmp_path):
    with h5py.File(tmp_path / "sample.hdf", "w") as file:
        raw = file.create_dataset("volumes/raw", data=np.arange(60, dtype="u1").reshape(3, 4, 5), chunks=(2, 2, 2))
        raw.attrs["resolution"] = (40.0, 4.0, 4.0)
        ids = file.create_dataset("volumes/labels/neuron_ids", data=np.ones((2, 2, 2), "u8"))
        ids.attrs.update({"resolution": (40.0, 4.0, 4.0), "offset": (40.0, 8.0, -4.0)})
        file["annotations/ids"] = np.arange(7)
        file["annotations/comments"] = "text"
    return tmp_path / "sample.hdf"


def test_cremi_offsets_are_physical_and_labels_are_a_segmentation(cremi):
    raw, ids = (open_store(cremi, dataset=name).spec for name in ("volumes/raw", "/volumes/labels/neuron_ids"))
    assert (raw.box.start, raw.voxel_size, raw.layer_type, raw.chunk) == ((0, 0, 0), (40, 4, 4), None, (2, 2, 2))
    assert (ids.box.start, ids.layer_type, ids.chunk) == ((1, 2, -1), "segmentation", None)
    assert open_store(f"{cremi}:volumes/raw").read(raw.box)[2, 3, 4] == 59


def test_several_volumes_are_listed_when_none_is_chosen(cremi):
    with pytest.raises(ParameterError, match=r"volumes/labels/neuron_ids \(2, 2, 2\), volumes/raw \(3, 4, 5\)"):
        open_store(cremi)
    with pytest.raises(StoreNotFoundError, match="it has annotations/comments"):
        open_store(cremi, dataset="volumes/rew")


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [("annotations/ids", GeometryError, "1 axes"), ("annotations/comments", GeometryError, "0 axes")],
)
def test_a_dataset_that_is_no_volume_is_refused(cremi, dataset, error, message):
    with pytest.raises(error, match=message):
        open_store(cremi, dataset=dataset)


def test_text_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["main"] = np.full((2, 2, 2), b"text", object)
    with pytest.raises(UnknownFormatError, match="not a voxel type"):
        open_store(tmp_path / "a.h5", dataset="main")


def test_the_only_volume_is_taken_and_bookkeeping_is_not(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["affinity"] = np.ones((3, 4, 5, 6), "f4")
        file["voxel_offset"] = (1, 2, 3)
        file["global_offset"] = (7, 7, 7)
        file["unique_nonzeros"] = np.arange(9)
    spec = open_store(tmp_path / "a.h5").spec
    assert (spec.channels, spec.box.start, spec.voxel_size) == (3, (1, 2, 3), None)


def test_what_the_caller_states_wins(tmp_path):
    save(tmp_path / "a.h5", SPEC)
    stated = {"voxel_size": (9, 8, 7), "voxel_offset": (1, 1, 1), "layer_type": "probability_map"}
    spec = open_store(tmp_path / "a.h5", **stated).spec
    assert (spec.voxel_size, spec.box.start, spec.layer_type) == ((9, 8, 7), (1, 1, 1), "probability_map")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    save(tmp_path / "a.h5", SPEC)
    data = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CorruptChunkError, match=r"a\.h5"):
        open_store(tmp_path / "a.h5")


def test_a_chunk_that_cannot_be_inflated_is_an_error_that_names_the_file(tmp_path):
    save(tmp_path / "a.h5", SPEC, chunk=(4, 4, 4))
    with h5py.File(tmp_path / "a.h5") as file:
        info = file["main"].id.get_chunk_info(5)
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[info.byte_offset : info.byte_offset + info.size] = bytes(info.size)
    (tmp_path / "a.h5").write_bytes(data)
    with pytest.raises(CorruptChunkError, match=r"a\.h5"):
        open_store(tmp_path / "a.h5").read(SPEC.box)


@pytest.mark.parametrize("channels", [None, 2])
def test_chunks_that_were_never_written_are_an_error_unless_told(tmp_path, channels):
    lead = () if channels is None else (channels,)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        main = file.create_dataset("main", (*lead, 8, 8, 8), "u2", chunks=(*(1 for _ in lead), 4, 4, 4), fillvalue=7)
        main[..., :4, :4, :8] = 1
        file["voxel_offset"] = (1, 2, 3)
    written = BoundingBox((1, 2, 3), (5, 6, 11))
    assert (open_store(tmp_path / "a.h5").read(written) == 1).all()
    beyond = BoundingBox((3, 5, 6), (7, 7, 8))
    with pytest.raises(MissingChunkError, match="fill_missing"):
        open_store(tmp_path / "a.h5").read(beyond)
    with counting() as counts:
        found = open_store(tmp_path / "a.h5", fill_missing=True).read(beyond)
    assert counts["missing_chunks"] == 6 * (channels or 1)
    assert found[..., -1, -1, -1].max() == 7


def test_a_contiguous_dataset_without_data_is_missing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("main", (4, 4, 4), "u2")
    with pytest.raises(MissingChunkError, match="never written"):
        open_store(tmp_path / "a.h5").read(BoundingBox((0, 0, 0), (1, 1, 1)))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    array = save(tmp_path / "a.h5", SPEC)

    def read(box):
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        write_file(tmp_path / "a.h5", SPEC, read)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    np.testing.assert_array_equal(open_store(tmp_path / "a.h5").read(SPEC.box), array)


def test_a_rewritten_file_is_read_anew(tmp_path):
    save(tmp_path / "a.h5", SPEC)
    store = open_store(tmp_path / "a.h5")
    store.read(SPEC.box)
    before = store.fingerprint()
    save(tmp_path / "a.h5", SPEC, np.zeros(SPEC.shape, "u1"))
    assert not store.read(SPEC.box).any()
    assert store.fingerprint() != before


def test_threads_share_one_handle(tmp_path):
    array = save(tmp_path / "a.h5", SPEC, chunk=(2, 4, 4))
    store = pickle.loads(pickle.dumps(open_store(tmp_path / "a.h5")))
    boxes = [BoundingBox((z, 5, 7), (z + 1, 20, 30)) for z in range(-3, 9)] * 5
    with ThreadPoolExecutor(4) as pool:
        for box, found in zip(boxes, pool.map(store.read, boxes), strict=True):
            np.testing.assert_array_equal(found, array[box.slices(SPEC.box)])


def test_unknown_compressions_and_empty_volumes_are_refused(tmp_path):
    with pytest.raises(ParameterError, match="szip"):
        save(tmp_path / "a.h5", SPEC, compression="szip")
    with pytest.raises(ParameterError, match="level 11"):
        save(tmp_path / "a.h5", SPEC, quality=11)
    with pytest.raises(ParameterError, match="nothing to write"):
        save(tmp_path / "a.h5", SPEC.replace(box=BoundingBox((0, 0, 0), (0, 2, 2)), chunk_origin=None))
    assert not list(tmp_path.iterdir())


def test_without_h5py_the_extra_is_named(tmp_path):
    save(tmp_path / "a.h5", SPEC)
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from daskflow.stores.opening import open_store\n"
        f"try: open_store({str(tmp_path / 'a.h5')!r})\n"
        "except ImportError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "daskflow[hdf5]" in said


def test_real_labels_are_read(real_data):
    store = open_store(real_data / "fib25_labels.h5")
    assert (store.spec.shape, store.spec.layer_type) == ((250, 250, 250), "segmentation")
    assert store.spec.voxel_size == (10, 10, 10)
    other = open_store(f"{real_data}/fib25_labels.h5:oversegmentation")
    assert other.spec.box == store.spec.box
    box = BoundingBox((100, 60, 60), (110, 70, 130))
    with h5py.File(real_data / "fib25_labels.h5") as file:
        np.testing.assert_array_equal(store.read(box), file["main"][box.slices(store.spec.box)])
        np.testing.assert_array_equal(other.read(box), file["oversegmentation"][box.slices(store.spec.box)])
