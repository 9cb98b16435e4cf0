"""Correcting what a layer says of itself: every level, nothing else, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import LockedJobError, MetadataMismatchError, ParameterError
from daskflow.jobs.lock import Lease
from daskflow.layers.correct import Correction, correct, undo
from daskflow.stores.opening import open_store
from daskflow.volume import Volume

ARRAY = np.random.default_rng(0).integers(0, 9, (8, 32, 32)).astype(np.uint32)
OME = ("ome-zarr", "ome-zarr-0.4")
ALL = ("precomputed", *OME, "zarr2", "zarr3")


def make(path: Path, format_name: str, array: np.ndarray = ARRAY, **how: Any) -> str:
    known = {"voxel_size": (40, 8, 8), "voxel_offset": (4, 8, -12), "layer_type": "image"}
    volume = Volume.from_array(array, **known)
    levels = 0 if format_name in ("zarr2", "zarr3") else 2
    assert (
        daskflow.save(volume, path / "layer", format=format_name, levels=levels, chunk=(4, 8, 8), **how)
        .run(progress=False)
        .ok
    )
    return str(path / "layer")


def metadata(path: str) -> dict[str, bytes]:
    names = ("info", "zarr.json", ".zattrs", ".zarray", ".zgroup")
    return {str(f): f.read_bytes() for f in Path(path).rglob("*") if f.name in names}


def voxels(path: str) -> list[np.ndarray]:
    store = open_store(path)
    return [store.with_mip(mip).read(store.mips[mip].box) for mip in range(len(store.mips))]


@pytest.mark.parametrize("format_name", ALL)
def test_kind_and_voxel_size_are_corrected_at_every_level_and_put_back(tmp_path: Path, format_name: str) -> None:
    layer = make(tmp_path, format_name)
    before, told, content = open_store(layer).mips, metadata(layer), voxels(layer)
    lines = correct(layer, Correction("segmentation", (30, 4, 4)))  # type: ignore[arg-type]
    assert lines == ["layer type: image -> segmentation", "voxel size (zyx): 40x8x8 nm -> 30x4x4 nm"]
    after = open_store(layer).mips
    for mip, (old, new) in enumerate(zip(before, after, strict=True)):
        factor = 2**mip
        assert new.voxel_size == (30, 4 * factor, 4 * factor)
        assert new.layer_type == "segmentation"
        assert new.replace(voxel_size=old.voxel_size, layer_type=old.layer_type) == old
    for now, then in zip(voxels(layer), content, strict=True):
        np.testing.assert_array_equal(now, then)
    assert undo(layer)[0] == "undone: layer type: image -> segmentation"
    assert metadata(layer) == told
    with pytest.raises(ParameterError, match="no correction to undo"):
        undo(layer)


@pytest.mark.parametrize("format_name", [*OME, "zarr2", "zarr3"])
def test_offset_is_corrected_at_every_level(tmp_path: Path, format_name: str) -> None:
    layer = make(tmp_path, format_name)
    before, content = open_store(layer).mips, voxels(layer)
    correct(layer, Correction(voxel_offset=(0, 16, -7)))
    for mip, (old, new) in enumerate(zip(before, open_store(layer).mips, strict=True)):
        assert new.box.start == (0, 16 // 2**mip, -7 // 2**mip)
        assert (new.box.shape, new.voxel_size, new.layer_type) == (old.box.shape, old.voxel_size, old.layer_type)
    for now, then in zip(voxels(layer), content, strict=True):
        np.testing.assert_array_equal(now, then)


def test_offset_of_precomputed_layers_is_corrected_in_shards_and_refused_in_chunk_files(tmp_path: Path) -> None:
    plain, sharded = (tmp_path / name for name in ("plain", "sharded"))
    plain.mkdir()
    sharded.mkdir()
    layer = make(plain, "precomputed")
    told = metadata(layer)
    with pytest.raises(ParameterError, match="translate --offset"):
        correct(layer, Correction(voxel_offset=(0, 0, 0)))
    assert metadata(layer) == told
    layer = make(sharded, "precomputed", shard=(8, 16, 16))
    content = voxels(layer)
    correct(layer, Correction(voxel_offset=(0, 16, -8)))
    assert [spec.box.start for spec in open_store(layer).mips] == [(0, 16, -8), (0, 8, -4), (0, 4, -2)]
    for now, then in zip(voxels(layer), content, strict=True):
        np.testing.assert_array_equal(now, then)


def test_all_else_of_the_metadata_survives(tmp_path: Path) -> None:
    layer = Path(make(tmp_path, "precomputed"))
    info = json.loads((layer / "info").read_text())
    info |= {"mine": [1, 2], "mesh": "mesh", "skeletons": "skeletons"}
    info["scales"][1] |= {"hidden": True}
    (layer / "info").write_text(json.dumps(info))
    lines = correct(str(layer), Correction("probability_map", (1, 1, 1.5)))
    assert lines[-1] == "its mesh and skeletons lie where the layer was: recreate them"
    changed = json.loads((layer / "info").read_text())
    assert changed["daskflow"] == {"layer_type": "probability_map"}
    assert [scale.pop("resolution") for scale in changed["scales"]] == [[1.5, 1, 1], [3, 2, 1], [6, 4, 1]]
    for scale in info["scales"]:
        del scale["resolution"]
    assert changed["scales"] == info["scales"]
    assert {**changed, "daskflow": 0, "scales": 0} == {**info, "daskflow": 0, "scales": 0}
    note = json.loads((layer / "provenance").read_text())["processing"][-1]["method"]
    assert (note["job"], note["changes"]) == ("set", lines[:2])
    correct(str(layer), Correction("image"))
    assert open_store(str(layer)).spec.layer_type == "image"


def test_other_attributes_of_arrays_follow_and_unknown_ones_stay(tmp_path: Path) -> None:
    layer = Path(make(tmp_path, "zarr2"))
    stated = {
        "resolution": [0.04, 0.008, 0.008],
        "units": ["um"] * 3,
        "offset": [0.16, 0.064, -0.096],
        "pixelResolution": {"unit": "um", "dimensions": [0.008, 0.008, 0.04]},
        "Voxel_size_um": [0.04, 0.008, 0.008],
        "mine": {"a": 1},
    }
    (layer / ".zattrs").write_text(json.dumps(stated))
    assert open_store(str(layer)).spec.box.start == (4, 8, -12)
    correct(str(layer), Correction("segmentation", (20, 4, 4)))
    spec = open_store(str(layer)).spec
    assert (spec.voxel_size, spec.box.start, spec.layer_type) == ((20, 4, 4), (4, 8, -12), "segmentation")
    found = json.loads((layer / ".zattrs").read_text())
    assert found["mine"] == {"a": 1}
    assert found["offset"] == [80, 32, -48]
    assert found["units"] == ["nm"] * 3
    assert found["Voxel_size_um"] == [0.02, 0.004, 0.004]
    assert found["pixelResolution"] == {"unit": "nm", "dimensions": [4, 4, 20]}


@pytest.mark.parametrize("format_name", OME)
def test_images_keep_their_other_axes_and_transformations_of_their_own(tmp_path: Path, format_name: str) -> None:
    layer = make(tmp_path, format_name, np.stack([ARRAY, ARRAY]))
    file = Path(layer) / ("zarr.json" if format_name == "ome-zarr" else ".zattrs")
    told = json.loads(file.read_text())
    ome = told["attributes"]["ome"] if format_name == "ome-zarr" else told
    ome["multiscales"][0]["coordinateTransformations"] = [{"type": "scale", "scale": [7, 2, 2, 2]}]
    for axis in ome["multiscales"][0]["axes"][1:]:
        axis["unit"] = "micrometer"
    file.write_text(json.dumps(told))
    assert open_store(layer).spec.voxel_size == (80_000, 16_000, 16_000)
    start = open_store(layer).spec.box.start
    correct(layer, Correction(voxel_size=(40, 8, 8)))
    assert [spec.voxel_size for spec in open_store(layer).mips] == [(40, 8, 8), (40, 16, 16), (40, 32, 32)]
    assert open_store(layer).spec.box.start == start
    changed = json.loads(file.read_text())
    ome = changed["attributes"]["ome"] if format_name == "ome-zarr" else changed
    assert ome["multiscales"][0]["coordinateTransformations"][0]["scale"] == [7, 1, 1, 1]
    assert ome["multiscales"][0]["axes"][0] == {"name": "c", "type": "channel"}


def test_what_cannot_be_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    lossy = make(tmp_path, "precomputed", ARRAY.astype(np.uint8), encoding="jpeg", quality=80)
    with pytest.raises(ParameterError, match=r"mip 0.*jpeg of quality 80.*cannot bear labels"):
        correct(lossy, Correction("segmentation"))
    floats = make(tmp_path / "a", "precomputed", ARRAY.astype(np.float32))
    with pytest.raises(ParameterError, match="the layer is float32"):
        correct(floats, Correction("segmentation"))
    with pytest.raises(ParameterError, match="is none of image, segmentation"):
        correct(floats, Correction("labels"))  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="nothing is set"):
        Correction()
    np.save(tmp_path / "array.npy", ARRAY)
    with pytest.raises(ParameterError, match="npy files are written whole"):
        correct(str(tmp_path / "array.npy"), Correction("image"))


def test_levels_of_images_are_corrected_with_the_image(tmp_path: Path) -> None:
    layer = make(tmp_path, "ome-zarr")
    with pytest.raises(ParameterError, match="is a level of an image; name"):
        correct(f"{layer}/1", Correction("segmentation"))


def test_a_layer_that_a_job_writes_is_left_alone(tmp_path: Path) -> None:
    layer = make(tmp_path, "precomputed")
    told = metadata(layer)
    with Lease(f"file://{layer}.daskflow/lock"), pytest.raises(LockedJobError):
        correct(layer, Correction("segmentation"))
    assert metadata(layer) == told


def test_metadata_that_changed_since_are_not_put_back(tmp_path: Path) -> None:
    layer = make(tmp_path, "precomputed")
    correct(layer, Correction(voxel_size=(40, 4, 4)))
    assert daskflow.downsample(daskflow.open(layer, mip=2), levels=1).run(progress=False).ok
    assert [scale["key"] for scale in json.loads((Path(layer) / "info").read_text())["scales"]][2:] == [
        "32_32_40",
        "32_32_40_mip3",
    ]
    with pytest.raises(MetadataMismatchError, match="voxel size"):
        undo(layer)
    assert len(open_store(layer).mips) == 4


def test_a_kind_that_stays_unknown_is_no_correction(tmp_path: Path) -> None:
    layer = str(tmp_path / "unknown.zarr")
    daskflow.save(daskflow.open(ARRAY.astype(np.uint8), voxel_size=(40, 8, 8)), layer).run(progress=False)
    assert open_store(layer).spec.layer_type is None
    assert correct(layer, Correction(voxel_size=(40, 8, 8))) == ["nothing to change"]
    assert correct(layer, Correction(voxel_size=(30, 8, 8))) == ["voxel size (zyx): 40x8x8 nm -> 30x8x8 nm"]


def test_corrections_on_the_command_line(tmp_path: Path) -> None:
    layer = make(tmp_path, "precomputed")
    words = ["set", layer, "--layer-type", "segmentation", "--voxel-size", "40", "4", "4"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "layer type: image -> segmentation" in result.output
    assert open_store(layer).spec.voxel_size == (40, 4, 4)
    assert "nothing to change" in CliRunner().invoke(app, words).output
    assert "undone: voxel size" in CliRunner().invoke(app, ["set", layer, "--undo"]).output
    assert open_store(layer).spec.voxel_size == (40, 8, 8)


def test_one_of_several_directories_of_meshes_is_chosen(tmp_path: Path) -> None:
    layer = str(tmp_path / "labels")
    labels = np.zeros((16, 16, 16), np.uint32)
    labels[2:8, 2:8, 2:8], labels[9:14, 9:14, 9:14] = 5, 6
    daskflow.save(daskflow.open(labels, voxel_size=(8, 8, 8), layer_type="segmentation"), layer).run(progress=False)
    daskflow.mesh(daskflow.open(layer)).run(progress=False)
    daskflow.mesh(daskflow.open(layer), labels=[5], output=f"{layer}/few").run(progress=False)
    found = {one.directory: (one.named, one.labels) for one in daskflow.layer_info(layer).objects}
    assert found == {"mesh_mip_0_err_8": (True, 2), "few": (False, 1)}
    assert "not named by the info" in CliRunner().invoke(app, ["info", layer]).output
    result = CliRunner().invoke(app, ["set", layer, "--mesh", "few/"])
    assert result.output == "mesh: mesh_mip_0_err_8 -> few\n"
    assert daskflow.read_mesh(layer, 6) is None
    with pytest.raises(ParameterError, match=r"skeletons in .*it has no skeletons"):
        correct(layer, Correction(skeletons="few"))
    with pytest.raises(ParameterError, match=r"it has few, mesh_mip_0_err_8"):
        correct(layer, Correction(mesh="many"))
    assert undo(layer) == ["undone: mesh: mesh_mip_0_err_8 -> few"]
    assert daskflow.read_mesh(layer, 6) is not None
