import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops_table

from daskflow.clusters import Threads
from daskflow.errors import GeometryError, MissingDependencyError, ParameterError
from daskflow.jobs.evaluate import Tabulate
from daskflow.layers.remove import plan_removal
from daskflow.operators.segmentation.region_properties import _PAIRS, properties, region_properties
from daskflow.scratch.tables import Merge
from daskflow.volume import Volume

NAMES = np.array([0, 3, 5, 2**40, 2**64 - 1], np.uint64)
SIZE = (40.0, 8.0, 4.0)
SHAPES = st.tuples(*[st.integers(2, 9)] * 3)
BLOCKS = st.tuples(*[st.integers(3, 9)] * 3)


def blobs(shape, seed):
    """Return labels of any shape, some in pieces, and an image."""
    random = np.random.default_rng(seed)
    coarse = random.choice(NAMES, [-(-side // 2) for side in shape])
    voxels = np.kron(coarse, np.ones((2, 2, 2), np.uint64))[tuple(slice(side) for side in shape)]
    return voxels, random.integers(0, 2**16, shape, np.uint16)


def measured(path, *arrays, block=(64, 64, 64), offset=(0, 0, 0), size=SIZE, workers=1):
    """Return the table of arrays, as text and as columns."""
    volumes = [Volume.from_array(a, voxel_offset=offset, voxel_size=size).with_block(block) for a in arrays]
    report = region_properties(*volumes, output=path).run(Threads(workers), progress=False)
    text = path.read_text()
    header, *lines = text.splitlines()
    columns = dict(zip(header.split(","), zip(*(line.split(",") for line in lines), strict=True), strict=False))
    assert report.counts["regions"] == len(lines)
    return text, columns


@settings(max_examples=10, deadline=None)
@given(SHAPES, BLOCKS, st.integers(0, 99))
def test_any_blocks_give_the_same_file(tmp_path_factory, shape, block, seed):
    directory = tmp_path_factory.mktemp("regions")
    arrays, offset = blobs(shape, seed), (-(2**33), 7, 2**40)

    whole, _ = measured(directory / "whole.csv", *arrays, offset=offset)
    cut, _ = measured(directory / "cut.csv", *arrays, block=block, offset=offset, workers=2)

    assert cut == whole


def test_more_blocks_than_are_merged_at_once_give_the_same_file(tmp_path):
    arrays = blobs((6, 6, 4), 1)
    whole, _ = measured(tmp_path / "whole.csv", *arrays)

    assert measured(tmp_path / "cut.csv", *arrays, block=(1, 2, 1))[0] == whole


@settings(max_examples=15, deadline=None)
@given(SHAPES, BLOCKS, st.integers(0, 99), st.sampled_from([SIZE, None]))
def test_small_volumes_have_the_properties_that_skimage_finds(tmp_path_factory, shape, block, seed, size):
    voxels, image = blobs(shape, seed)
    offset = np.array([-3, 50, 0])
    names, numbers = np.unique(voxels, return_inverse=True)
    numbers = numbers.reshape(shape) + (names[0] != 0)

    _, found = measured(
        tmp_path_factory.mktemp("regions") / "r.csv", voxels, image, block=block, offset=tuple(offset), size=size
    )

    if not numbers.any():
        assert found == {}
        return
    intensities = [f"intensity_{name}" for name in ("mean", "min", "max", "std")]
    wanted = ["area", "bbox", "centroid", *intensities]
    known = regionprops_table(numbers, image, properties=wanted)
    assert [int(label) for label in found["label"]] == names[names != 0].tolist()
    assert [int(n) for n in found["voxels"]] == known["area"].tolist()
    for n, axis in enumerate("zyx"):
        assert [int(a) - offset[n] for a in found[f"start_{axis}"]] == known[f"bbox-{n}"].tolist()
        assert [int(a) - offset[n] for a in found[f"stop_{axis}"]] == known[f"bbox-{n + 3}"].tolist()
        centroid = np.array(found[f"centroid_{axis}"], float)
        assert centroid == pytest.approx(known[f"centroid-{n}"] + offset[n])
        if size is not None:
            assert np.array(found[f"centroid_{axis}_nm"], float) == pytest.approx(centroid * size[n])
    for name in intensities:
        assert np.array(found[name], float) == pytest.approx(known[name], abs=1e-9)
    spaced = regionprops_table(numbers, spacing=size or (1, 1, 1), properties=["inertia_tensor_eigvals"])
    first, second, third = (spaced[f"inertia_tensor_eigvals-{n}"] for n in range(3))
    for name, variance in (
        ("major", first + second - third),
        ("middle", first - second + third),
        ("minor", second + third - first),
    ):
        squared = np.array(found[f"axis_{name}_length"], float) ** 2
        assert squared == pytest.approx(10 * variance, abs=1e-8)  # skimage's own lengths are the roots of these


def test_orientation_is_that_of_a_rod(tmp_path):
    voxels = np.zeros((30, 30, 30), np.uint8)
    for n in range(20):
        voxels[3 + n, 25 - n, 4:6] = 1

    _, found = measured(tmp_path / "rod.csv", voxels, size=(1.0, 1.0, 1.0))

    axis = np.array([float(found[f"orientation_{a}"][0]) for a in "zyx"])
    assert np.abs(axis) == pytest.approx([0.5**0.5, 0.5**0.5, 0], abs=1e-6)
    assert axis[0] * axis[1] < 0
    assert float(found["axis_middle_length"][0]) < 3 < 25 < float(found["axis_major_length"][0])


@settings(max_examples=6, deadline=None)
@given(BLOCKS, st.integers(0, 99), st.sampled_from([Tabulate, Merge]))
def test_an_interrupted_run_goes_on(tmp_path_factory, run_twice, block, seed, broken):
    directory, arrays = tmp_path_factory.mktemp("regions"), blobs((9, 9, 9), seed)
    whole, _ = measured(directory / "whole.csv", *arrays)

    job = region_properties(
        *(Volume.from_array(a, voxel_size=SIZE).with_block(block) for a in arrays), output=directory / "cut.csv"
    )
    run_twice(job, broken, seed % 3)

    assert (directory / "cut.csv").read_text() == whole
    assert job.run(Threads(1), progress=False).already_done


def test_a_label_larger_than_64_bits_of_sums_is_measured_exactly():
    side, count = 2**21, 2**60
    middle = count * (side - 1) // 2
    squares = count * (side - 1) * (2 * side - 1) // 6
    sums = [middle] * 3 + [squares if i == j else middle**2 // count for i, j in _PAIRS]
    rows = {
        "labels": np.array([7], np.uint64),
        "voxels": np.array([count]),
        "starts": np.zeros((1, 3), np.int64),
        "stops": np.full((1, 3), side),
        "low": np.array([[value % 2**32 for value in sums]]),
        "high": np.array([[value >> 32 for value in sums]]),
    }

    (found,) = properties(rows, (5, 0, 0), None)

    assert found["centroid_z"] == [(side - 1) / 2 + 5]
    assert found["axis_minor_length"] == pytest.approx((20 * (side**2 - 1) / 12) ** 0.5, rel=1e-12)


def test_tables_are_written_as_parquet_too(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    voxels, image = blobs((9, 9, 9), 1)
    _, expected = measured(tmp_path / "r.csv", voxels, image)
    volumes = [Volume.from_array(one, voxel_size=SIZE) for one in (voxels, image)]

    assert region_properties(*volumes, output=tmp_path / "r.parquet").run(Threads(1), progress=False).ok

    found = parquet.read_table(tmp_path / "r.parquet").to_pydict()
    assert {name: [str(value) for value in column] for name, column in found.items()} == {
        name: list(column) for name, column in expected.items()
    }


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    job = region_properties(Volume.from_array(np.ones((2, 2, 2), np.uint8)), output=tmp_path / "r.parquet")

    with pytest.raises(MissingDependencyError, match=r"daskflow\[parquet\]"):
        job.run(Threads(1), progress=False)


def test_what_cannot_be_measured_is_refused(tmp_path):
    labels = Volume.from_array(np.ones((2, 2, 2), np.uint8))

    with pytest.raises(ParameterError, match=r"\.parquet"):
        region_properties(labels, output=tmp_path / "r.txt")
    with pytest.raises(ParameterError, match="float32"):
        region_properties(Volume.from_array(np.ones((2, 2, 2), np.float32)), output=tmp_path / "r.csv")
    with pytest.raises(ParameterError, match=r"float32 in 1 channels.*astype"):
        region_properties(labels, Volume.from_array(np.ones((2, 2, 2), np.float32)), output=tmp_path / "r.csv")
    with pytest.raises(GeometryError, match="0-2_0-2_0-3"):
        region_properties(labels, Volume.from_array(np.ones((2, 2, 3), np.uint8)), output=tmp_path / "r.csv")
    with pytest.raises(ParameterError, match="too long"):
        region_properties(Volume.from_array(np.ones((1, 1, 2**23), np.uint8)), output=tmp_path / "r.csv")


def test_a_table_is_removed_with_the_record_of_its_job(tmp_path):
    measured(tmp_path / "regions.csv", blobs((8, 8, 8), 1)[0])
    plan_removal(str(tmp_path / "regions.csv")).run()
    assert not list(tmp_path.iterdir())
