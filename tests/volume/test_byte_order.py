"""Voxels are in this machine's byte order behind every door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr

import daskflow
from daskflow.errors import ParameterError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.opening import create_store
from daskflow.volume import Volume, load_operator

LABELS = np.kron(np.arange(1, 9).reshape(2, 2, 2), np.ones((5, 6, 7), int))
BIG = LABELS.astype(">u8")


def swapped(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder())


def in_npy(folder: Path) -> Path:
    np.save(folder / "big.npy", BIG)
    return folder / "big.npy"


def in_hdf5(folder: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "big.h5", "w") as file:
        file["main"] = BIG
    return folder / "big.h5"


def in_tiff(folder: Path) -> Path:
    tifffile.imwrite(folder / "big.tif", BIG, byteorder=">")
    return folder / "big.tif"


def in_zarr2(folder: Path) -> Path:
    zarr.create_array(folder / "big.zarr", data=BIG, chunks=(4, 4, 4), zarr_format=2)
    return folder / "big.zarr"


def in_zarr3(folder: Path) -> Path:
    serializer = zarr.codecs.BytesCodec(endian="big")
    zarr.create_array(folder / "big.zarr", data=LABELS.astype("u8"), chunks=(4, 4, 4), serializer=serializer)
    codecs = json.loads((folder / "big.zarr" / "zarr.json").read_text())["codecs"]
    assert codecs[0]["configuration"] == {"endian": "big"}
    return folder / "big.zarr"


@pytest.mark.parametrize("write", [in_npy, in_hdf5, in_tiff, in_zarr2, in_zarr3])
def test_files_in_the_other_byte_order_are_read_as_the_same_labels(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    volume = daskflow.open(write(tmp_path))
    assert volume.dtype == np.uint64
    assert volume.read().dtype.isnative
    np.testing.assert_array_equal(volume.read(), LABELS)
    counted = load_operator("connected_components").function(volume).read()
    assert sorted(np.unique(counted)) == list(range(1, 9))


def doubled(array: np.ndarray) -> np.ndarray:
    return swapped(array * 2)


def generated(box: BoundingBox) -> np.ndarray:
    return swapped(np.full(box.shape, 258, np.uint16))


def test_what_functions_return_is_turned_into_this_machines_order() -> None:
    volume = Volume.from_array(LABELS.astype(np.uint16)).map_blocks(doubled)
    assert volume.dtype.isnative
    assert volume.read().dtype.isnative
    np.testing.assert_array_equal(volume.read(), LABELS * 2)
    spec = VolumeSpec(BoundingBox((0, 0, 0), (3, 4, 5)), np.dtype(np.uint16))
    source = Volume.from_function(generated, spec)
    assert source.read().dtype.isnative
    assert set(source.read().flat) == {258}


def test_a_function_that_returns_another_type_is_still_refused() -> None:
    volume = Volume.from_array(LABELS.astype(np.uint16)).map_blocks(doubled, dtype=np.uint32)
    with pytest.raises(ParameterError, match="declared is uint32"):
        volume.read()


def test_arrays_of_either_order_are_one_volume() -> None:
    native = Volume.from_array(LABELS.astype("u8"))
    assert Volume.from_array(BIG).expression.describe() == native.expression.describe()
    lazy = Volume.from_dask(da.from_array(BIG))
    assert lazy.data.dtype.isnative
    np.testing.assert_array_equal(lazy.read(), LABELS)


def test_a_store_takes_an_array_of_either_order(tmp_path: Path) -> None:
    for name in ("layer", "layer.zarr"):
        store = create_store(tmp_path / name, VolumeSpec(BoundingBox((0, 0, 0), LABELS.shape), np.dtype(">u8")))
        store.write(store.spec.box, BIG)
        np.testing.assert_array_equal(store.read(store.spec.box), LABELS)
