"""Layers for napari: through its registry of plugins, and in a window."""

from __future__ import annotations

import sys
import tomllib
import types
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

import daskflow
from daskflow import view
from daskflow.errors import MissingDependencyError, ParameterError, StoreError
from daskflow.stores.objects.located import Points, SkeletonSet
from daskflow.view.napari import get_reader, layer_of, show
from daskflow.volume import Volume

MANIFEST = Path(view.__file__).with_name("napari.yaml")


def saved(path, array, **options):
    volume = Volume.from_array(array, voxel_offset=(4, -8, 2), voxel_size=(40, 8, 4), **options)
    volume.save(path, levels=2).run()
    return volume


@pytest.fixture
def manager():
    npe2 = pytest.importorskip("npe2", reason="npe2 is not installed: pip install npe2")
    plugins = npe2.PluginManager()
    plugins.register(npe2.PluginManifest.from_file(MANIFEST))
    plugins.activate("daskflow")
    return plugins


def read(path, manager):
    from npe2.io_utils import _read  # the public function knows the registry of the process alone

    return _read([str(path)], plugin_name="daskflow", stack=False, _pm=manager)


def test_layer_on_disk_opens_with_its_levels_in_nm(tmp_path, manager):
    labels = np.arange(32 * 64 * 64, dtype=np.uint32).reshape(32, 64, 64)
    saved(tmp_path / "labels", labels)
    ((levels, options, kind),) = read(tmp_path / "labels", manager)
    assert kind == "labels"
    assert all(isinstance(level, da.Array) for level in levels)
    assert [level.shape for level in levels] == [(32, 64, 64), (32, 32, 32), (32, 16, 16)]
    np.testing.assert_array_equal(levels[0][3].compute(), labels[3])
    assert options == {
        "name": "labels", "multiscale": True, "scale": (40, 8, 4), "units": ("nm",) * 3,
        "translate": (4.5 * 40, -7.5 * 8, 2.5 * 4),
    }  # fmt: skip


def test_file_opens_and_what_is_no_layer_is_left_to_others(tmp_path, manager):
    Volume.from_array(np.full((4, 4, 4), 9, np.uint16), layer_type="image").save(f"{tmp_path}/a.h5").run()
    ((data, options, kind),) = read(tmp_path / "a.h5", manager)
    assert (kind, options["name"], data[1, 2, 3].compute()) == ("image", "a.h5", 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="daskflow"):
        read(tmp_path / "empty", manager)
    assert get_reader([str(tmp_path / "a.h5")]) is None
    assert get_reader(f"{tmp_path}/absent.h5") is None


def test_damaged_layer_says_what_is_wrong(tmp_path):
    (tmp_path / "layer").mkdir()
    (tmp_path / "layer" / "info").write_text("{")
    reader = get_reader(str(tmp_path / "layer"))
    with pytest.raises(StoreError, match="damaged"):
        reader(str(tmp_path / "layer"))


def test_package_names_the_manifest():
    project = tomllib.loads((Path(daskflow.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, _, file = project["entry-points"]["napari.manifest"]["daskflow"].partition(":")
    assert Path(sys.modules[module].__file__).with_name(file) == MANIFEST


def test_channels_are_layers_of_their_own_in_their_contrast():
    affinities = np.linspace(0, 1, 3 * 4 * 4 * 4, dtype=np.float32).reshape(3, 4, 4, 4)
    data, options, kind = layer_of("affinities", Volume.from_array(affinities, layer_type="affinity_map"))
    assert (kind, data.shape, options["channel_axis"], options["contrast_limits"]) == ("image", (3, 4, 4, 4), 0, (0, 1))
    assert "units" not in options
    mask, options, kind = layer_of("mask", Volume.from_array(affinities[:1] > 0.1, layer_type="segmentation"))
    assert (kind, mask.dtype, mask.shape) == ("labels", np.uint8, (4, 4, 4))


def test_window_gets_all_layers_and_closes_before_the_line_goes_on(monkeypatch):
    calls = []

    class Window:
        def add_image(self, data, **options):
            calls.append(("image", data.shape, options["name"]))

        def add_points(self, data, **options):
            calls.append(("points", data.tolist(), options["scale"]))

    fake = types.SimpleNamespace(Viewer=Window, run=lambda: calls.append("run"))
    monkeypatch.setitem(sys.modules, "napari", fake)
    image = Volume.from_array(np.zeros((2, 3, 4), np.uint8), layer_type="image")
    show({"em": image, "peaks": Points(np.array([(1, 2, 3)]), (40, 8, 8))})
    assert calls == [("image", (2, 3, 4), "em"), ("points", [[1.5, 2.5, 3.5]], (40, 8, 8)), "run"]
    with pytest.raises(ParameterError, match="volumes and points"):
        show({"skeletons": SkeletonSet({})})


def test_missing_napari_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)
    with pytest.raises(MissingDependencyError, match=r"daskflow\[napari\]"):
        show({})
