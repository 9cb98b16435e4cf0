"""Complex voxels are refused by name wherever they come in."""

import dask.array as da
import numpy as np
import pytest

import daskflow
from daskflow.errors import DaskflowError, ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.volume import Volume

ARRAY = np.ones((4, 4, 4), np.complex64)
REFUSED = pytest.raises(ParameterError, match=r"volumes hold real numbers, not complex64: take numpy\.abs")


@pytest.mark.parametrize(
    "make",
    [
        Volume.from_array,
        daskflow.open,
        lambda array: Volume.from_dask(da.from_array(array)),
        lambda array: Volume.from_array(array.real).astype(array.dtype),
        lambda array: Volume.from_array(array.real).map_blocks(lambda block: block * np.complex64(1j)),
        lambda array: Volume.from_array(array.real).map_overlap(np.copy, depth=1, dtype=array.dtype),
    ],
    ids=["from_array", "open", "from_dask", "astype", "map_blocks", "map_overlap"],
)
def test_complex_arrays_are_no_volumes(make):
    with REFUSED:
        make(ARRAY)


@pytest.mark.parametrize("name", ["npy", "zarr", "tif"])
def test_complex_files_are_not_opened(tmp_path, name):
    path = tmp_path / f"image.{name}"
    if name == "npy":
        np.save(path, ARRAY)
    elif name == "zarr":
        path.mkdir()
        (path / ".zarray").write_text(
            '{"zarr_format": 2, "shape": [4, 4, 4], "chunks": [4, 4, 4], "dtype": "<c8", "compressor": null,'
            ' "fill_value": null, "filters": null, "order": "C"}'
        )
    else:
        import tifffile

        tifffile.imwrite(path, ARRAY, photometric="minisblack")
    with pytest.raises(DaskflowError, match=r"complex64|<c8"):
        daskflow.open(str(path))


def test_a_block_function_that_turns_complex_is_named():
    volume = Volume.from_array(np.ones((4, 4, 4), np.float32)).map_blocks(np.fft.fft, dtype=np.float32)
    with pytest.raises(ParameterError, match="returned complex"):
        volume.read()


@pytest.mark.parametrize(
    ("dtype", "match"),
    [
        ("complex128", r"real numbers, not complex128.*numpy\.abs.*imag"),
        ("U3", "volumes hold numbers, not <U3"),
        ("datetime64[s]", "volumes hold numbers"),
        ("O", "volumes hold numbers, not object"),
    ],
)
def test_voxels_are_real_numbers(dtype, match):
    with pytest.raises(ParameterError, match=match):
        VolumeSpec(BoundingBox((0, 0, 0), (1, 1, 1)), np.dtype(dtype))
