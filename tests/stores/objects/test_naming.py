"""How a layer names its meshes and skeletons."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from daskflow.errors import StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores.objects.layer_objects import layer_above, name_objects
from daskflow.stores.opening import create_store


@pytest.fixture
def layer(tmp_path):
    spec = VolumeSpec(BoundingBox((0, 0, 0), (8, 8, 8)), np.dtype(np.uint32), layer_type="segmentation")
    return create_store(f"file://{tmp_path}/layer", spec, format="precomputed").url


def test_no_name_is_lost_when_many_are_given_at_once(layer, tmp_path):
    names = [f"kind{number}" for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: name_objects(layer, **{name: f"{name}_here"}), names))
    info = json.loads((tmp_path / "layer/info").read_text())
    assert {name: info.get(name) for name in names} == {name: f"{name}_here" for name in names}
    assert len(info["scales"]) == 1


def test_names_are_not_written_again(layer, tmp_path):
    name_objects(layer, mesh="mesh")
    written = (tmp_path / "layer/info").stat().st_mtime_ns
    name_objects(layer, mesh="mesh")
    assert (tmp_path / "layer/info").stat().st_mtime_ns == written


def test_objects_lie_in_the_layer_above_them_or_in_none(layer, tmp_path):
    assert layer_above(f"{layer}/mesh") == layer
    assert layer_above(f"file://{tmp_path}/alone") is None
    with pytest.raises(StoreNotFoundError):
        name_objects(f"file://{tmp_path}/alone", mesh="mesh")
