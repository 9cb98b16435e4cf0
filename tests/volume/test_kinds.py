"""What operators take: images, labels, and labels of which none is negative."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.volume import Volume, load_operator, operator_names

IMAGES = {
    "channel_voting": {},
    "clahe": {},
    "contrast": {},
    "contrast_levels": {"output": "levels"},
    "detect_points": {"output": "points.h5", "min_distance": 1},
    "gaussian_filter": {},
    "inference": {"input_patch_size": (4, 4, 4), "output_patch_overlap": (1, 1, 1), "framework": "identity"},
    "inverse": {},
    "mapto01": {},
    "median_filter": {},
    "normalize_contrast": {},
    "normalize_intensity": {},
    "normalize_section_shang": {},
    "quantize": {},
    "rescale_intensity": {},
    "roi": {},
    "stretch_intensity": {},
    "threshold": {"threshold": 1},
}
LABELS = {
    "evaluate_segmentation": {},
    "fill_segmentation_holes": {},
    "hypersquare_consensus": {"volume_map": "volumes.json", "consensus_map": "consensus.json"},
    "index_objects": {},
    "mask_out_objects": {"dust_size_threshold": 0},
    "mesh": {"output": "meshes"},
    "mesh_fragments": {"output_path": "layer"},
    "region_properties": {"output": "regions.csv"},
    "remap": {"table": {1: 2}, "unmapped": "keep"},
    "remap_segmentation": {},
    "skeletonize": {"output": "skeletons"},
    "voxel_counts": {"output": "counts.csv"},
}
ANYTHING = {
    *("adjust_bbox", "aggregate_skeleton_fragments", "astype", "cloud_watch", "connected_components"),
    *("copy_objects", "create_bbox", "create_chunk", "create_info", "crop", "crop_margin", "declare"),
    *("delete_task_in_queue", "download_mesh", "download_meshes", "download_skeleton", "downsample"),
    *("downsample_upload", "downsample_volume", "fetch_task_from_file", "fetch_task_from_sqs", "fill"),
    *("generate_tasks", "index_database", "instances", "load_h5", "load_json", "load_npy", "load_nrrd", "load_png"),
    *("load_points", "load_precomputed", "load_skeleton", "load_synapses", "load_tif", "load_zarr"),
    *("mark_complete", "mask", "mesh_manifest", "multiply", "normalize_contrast_nkem"),
    *("normalize_section_contrast", "open", "pick_channels", "plugin", "reorder_sections", "save"),
    *("save_annotations", "save_h5", "save_npy", "save_nrrd", "save_pngs", "save_points", "save_precomputed"),
    *("save_swc", "save_synapses", "save_tif", "save_zarr", "setup_env", "skip_all_zero"),
    *("skip_task_by_blocks_in_volume", "skip_task_by_file", "statistics", "translate", "transpose"),
}
# affinities, and fragments of them
OF_AFFINITIES = {"agglomerate", "save_pychunkedgraph", "watershed"}
# channels, 8 or 16 bits, and a layer
NEED_MORE = {"channel_voting", "hypersquare_consensus", "index_objects"}


def apply(name: str, volume: Volume, options: dict[str, Any]) -> Any:
    operator = load_operator(name)
    return operator.function(*[volume] * sum(one.required for one in operator.inputs), **options)


def volume_of(dtype: str, layer_type: Any = None, **how: Any) -> Volume:
    return Volume.from_array(np.ones((4, 8, 8), dtype), layer_type=layer_type, **how)


def test_every_operator_takes_images_or_labels_or_anything() -> None:
    assert sorted({*IMAGES, *LABELS, *ANYTHING, *OF_AFFINITIES}) == operator_names()


@pytest.mark.parametrize("name", IMAGES)
def test_operators_for_images_refuse_segmentations_when_called(name: str) -> None:
    dtype = "float32" if name == "quantize" else "uint8"
    with pytest.raises(ParameterError, match=r"takes an image.*layer_type='image'.*daskflow set LAYER") as refused:
        apply(name, volume_of(dtype, "segmentation"), IMAGES[name])
    assert str(refused.value).startswith(load_operator(name).command)
    for kind in (None, "image") if name not in NEED_MORE else ():
        apply(name, volume_of(dtype, kind), IMAGES[name])


@pytest.mark.parametrize("name", LABELS)
def test_operators_for_labels_refuse_images_when_called(name: str) -> None:
    for kind in ("image", "probability_map", "affinity_map"):
        with pytest.raises(ParameterError, match=r"takes a segmentation.*layer_type=.*daskflow set LAYER"):
            apply(name, volume_of("uint8", kind), LABELS[name])
    with pytest.raises(ParameterError, match="holds float32"):
        apply(name, volume_of("float32"), LABELS[name])
    with pytest.raises(ParameterError, match="has 2 channels"):
        apply(name, Volume.from_array(np.ones((2, 4, 4, 4), "uint8")), LABELS[name])
    for kind in (None, "segmentation") if name not in NEED_MORE else ():
        apply(name, volume_of("int64", kind), LABELS[name])


@pytest.mark.parametrize("name", [*sorted(LABELS.keys() - NEED_MORE), "connected_components", "save"])
def test_a_negative_label_is_refused_with_its_place_and_value(name: str, tmp_path: Path) -> None:
    pytest.importorskip("kimimaro" if name == "skeletonize" else "zmesh" if name == "mesh" else "numpy")
    array = np.ones((6, 8, 8), np.int32)
    array[4, 5, 6] = -7
    volume = Volume.from_array(array, voxel_offset=(10, 0, 0), voxel_size=(1, 1, 1))
    options: dict[str, Any] = {**LABELS.get(name, {}), **({"url": tmp_path / "x"} if name == "save" else {})}
    if "output" in options:
        options["output"] = str(tmp_path / ("out.csv" if name in ("region_properties", "voxel_counts") else "out"))
    result = apply(name, volume, options)
    if isinstance(result, Volume):
        result = daskflow.save(result, tmp_path / "layer")
    with Threads(2) as threads:
        report = result.run(threads, progress=False, retries=0)
    assert not report.ok
    assert "label -7 at (14, 5, 6) (zyx) is negative" in report.failures[0].message


def test_signed_labels_without_a_negative_one_are_those_of_unsigned_integers(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 5, (6, 8, 8))
    found = [
        load_operator("connected_components").function(Volume.from_array(array.astype(dtype))).read()
        for dtype in ("int64", "uint64", ">i4")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_threshold_of_integers_has_no_default() -> None:
    threshold = load_operator("threshold").function
    for dtype, limits in (("uint8", "0 to 255"), ("int16", "-32768 to 32767")):
        with pytest.raises(ParameterError, match=f"give a threshold.* {limits}"):
            threshold(volume_of(dtype))
    assert threshold(volume_of("float32")).read().all()
    assert threshold(volume_of("bool")).read().all()
    assert not threshold(volume_of("uint8"), threshold=1).read().any()
