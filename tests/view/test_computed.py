"""The computed layer is a precomputed layer: another reader of the format finds the same voxels in it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.view.server import ComputedLayer, chunk_of, levels_of, served_dtype
from daskflow.volume import Volume


def stored(layer: ComputedLayer):
    """Return tensorstore views, zyx or czyx, of a copy of all objects of a layer, one per scale."""
    context = ts.Context()
    objects = ts.KvStore.open({"driver": "memory", "path": "layer/"}, context=context).result()
    objects.write("info", layer.info()).result()
    for mip, level in enumerate(layer.levels):
        for box in BlockGrid(level.spec.box, chunk_of(level.spec)):
            name = "_".join(f"{a}-{b}" for a, b in zip(box.start[::-1], box.stop[::-1], strict=True))
            objects.write(f"{mip}/{name}", layer.chunk(f"{mip}/{name}")).result()
    spec = {"driver": "neuroglancer_precomputed", "kvstore": {"driver": "memory", "path": "layer/"}}
    return [ts.open({**spec, "scale_index": mip}, context=context).result().T for mip in range(len(layer.levels))]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 80), st.integers(1, 80)),
    offset=st.tuples(*[st.integers(-100, 100)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "uint32", "uint64", "float32", "bool", "int64", "float64"]),
    channels=st.sampled_from([None, 1, 3]),
)
def test_tensorstore_reads_the_volume_back_with_its_coordinates(shape, offset, dtype, channels):
    full = shape if channels is None else (channels, *shape)
    array = np.random.default_rng(3).integers(0, 200, full).astype(dtype)
    volume = Volume.from_array(array, voxel_offset=offset, voxel_size=(40, 4, 4.5))
    layer = ComputedLayer(levels_of(volume))
    views = stored(layer)
    for level, view in zip(layer.levels, views, strict=True):
        expected = level.read(level.spec.box).reshape(-1, *level.spec.box.shape)
        assert view.origin[-3:] == level.spec.box.start
        assert np.array_equal(view.read().result(), expected.astype(view.dtype.numpy_dtype))
        assert [unit.multiplier for unit in view.dimension_units[-3:]] == list(level.spec.voxel_size)


def test_chunk_is_read_only_when_it_is_asked_for():
    asked = []

    def read(box):
        asked.append(box)
        return np.zeros(box.shape, np.uint8)

    spec = VolumeSpec(BoundingBox((0, 0, 0), (64, 64, 128)), np.dtype("uint8"))
    layer = ComputedLayer([type(levels_of(Volume.from_array(np.zeros((1, 1, 1))))[0])(spec, read)])
    json.loads(layer.info())
    assert not asked
    assert layer.chunk("0/64-128_0-64_0-64") == bytes(64**3)
    assert asked == [BoundingBox((0, 0, 64), (64, 64, 128))]


@pytest.mark.parametrize(
    "name",
    [
        "", "infos", "0", "0/", "1/0-64_0-64_0-64", "0/0-64_0-64_0-64.gz", "0/1-64_0-64_0-64", "0/0-64_0-64_64-64",
        "0/0-64_0-64_64-0", "0/0-128_0-64_0-64", "0/64-128_0-64_0-64", "0/0-64_0-64_-64-0", "../0/0-64_0-64_0-64",
    ],
)  # fmt: skip
def test_names_of_no_chunk_of_the_layer_are_unknown(name):
    layer = ComputedLayer(levels_of(Volume.from_array(np.zeros((64, 64, 64), np.uint8))))
    assert layer.chunk("0/0-64_0-64_0-64") is not None
    assert layer.chunk(name) is None


def test_labels_without_a_sign_and_images_that_shaders_can_read():
    spec = VolumeSpec(BoundingBox((0, 0, 0), (1, 1, 1)), np.dtype("int64"), layer_type="segmentation")
    assert served_dtype(spec) == np.uint64
    assert served_dtype(spec.replace(dtype=bool)) == np.uint8
    assert served_dtype(spec.replace(dtype=np.uint16)) == np.uint16
    assert served_dtype(spec.replace(layer_type="image")) == np.float32
    assert served_dtype(spec.replace(layer_type="probability_map", dtype=np.float64)) == np.float32


def test_labels_that_are_no_integers_are_refused():
    volume = Volume.from_array(np.zeros((4, 4, 4), np.float32), layer_type="segmentation")
    with pytest.raises(ParameterError, match="cast it with astype"):
        ComputedLayer(levels_of(volume))
