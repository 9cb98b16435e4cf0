"""What holds for every operator, by a table of example arguments; an operator that is missing from it fails a test."""

import json
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

from daskflow.jobs import Job
from daskflow.stores.objects.located import JsonValue, Points, SkeletonSet
from daskflow.stores.objects.synapses import Synapses
from daskflow.testing.operators import OperatorSuite
from daskflow.volume import AfterTask, BoxTask, Tasks, Volume, load_operator, operator_names

SHAPE = (9, 20, 24)

PLUGIN = """
from chunkflow.chunk import Chunk

def execute(chunk, factor=2):
    assert chunk.voxel_offset is not None
    return Chunk(chunk.array * factor)
"""

# dtype of the input, its channels, arguments
TRANSFORMS = {
    "agglomerate": ("float32", 3, {"threshold": 0.6}),
    "watershed": ("float32", 3, {"low": 0.2, "high": 0.9}),
    "astype": ("float32", 2, {"dtype": "uint8"}),
    "channel_voting": ("float32", 3, {}),
    "clahe": ("uint8", None, {"tile_grid": (3, 4)}),
    "connected_components": ("uint8", None, {"connectivity": 26}),
    "contrast": ("uint8", 1, {"clip_fraction": (0.05, 0.1), "minval": 3}),
    "crop": ("uint8", None, {"start": (1, 8, 3), "size": (3, 9, 20)}),
    "crop_margin": ("uint8", None, {"margin_size": (1, 2, 3)}),
    "declare": ("uint8", 2, {"voxel_size": (30, 3, 3)}),
    "downsample_volume": ("uint8", 2, {"factor": (2, 3, 2)}),
    "fill_segmentation_holes": ("uint8", None, {}),
    "gaussian_filter": ("float32", 2, {"sigma": (0.5, 1, 1)}),
    "hypersquare_consensus": ("uint8", 1, {"volume_map": "volumes.json", "consensus_map": "consensus.json"}),
    "inference": (
        "uint8",
        None,
        {"input_patch_size": (4, 8, 8), "output_patch_overlap": (2, 4, 4), "framework": "identity"},
    ),
    "instances": ("uint8", None, {"file": "labels.py", "depth": (2, 3, 3), "block": (5, 6, 7)}),
    "inverse": ("float32", 2, {}),
    "mask": ("uint8", 2, {"volume_path": "mask", "mip": 0}),
    "mapto01": ("float32", 1, {}),
    "mask_out_objects": ("uint8", None, {"dust_size_threshold": 20}),
    "median_filter": ("uint8", 2, {"size": (3, 1, 5)}),
    "multiply": ("uint8", 2, {}),
    "normalize_contrast": ("uint8", None, {"lower_clip_fraction": 0.05, "per_section": False}),
    "normalize_contrast_nkem": ("uint8", 1, {"upper_clip_fraction": 0.1}),
    "normalize_intensity": ("uint8", None, {}),
    "normalize_section_contrast": ("uint8", None, {"levels_path": "levels"}),
    "normalize_section_shang": ("float32", 1, {"nominalmin": -1, "clipvalues": True}),
    "pick_channels": ("uint8", 3, {"channels": (2, 0)}),
    "plugin": ("float32", None, {"file": "twice.py"}),
    "quantize": ("float32", 3, {"channel": 1}),
    "remap": ("uint8", None, {"table": {3: 250, 7: 0}, "unmapped": "keep"}),
    "remap_segmentation": ("uint8", 1, {"base_id": 7}),
    "reorder_sections": ("uint8", 2, {"mapping": {0: 3, 3: 4, 4: 0, 1: 2, 2: 1}}),
    "rescale_intensity": ("float32", 2, {}),
    "stretch_intensity": ("uint8", 2, {"min_threshold": 20, "max_threshold": 150}),
    "threshold": ("float32", 1, {"threshold": 0.4}),
    "transpose": ("uint8", 2, {}),
    "translate": ("uint8", 2, {"offset": (5, -7, 100)}),
}
SOURCES = {"create_chunk": {"size": SHAPE, "pattern": "random", "dtype": "float32"}}
NEEDS_FILES = {
    *("load_h5", "load_npy", "load_nrrd", "load_png", "load_precomputed", "load_tif", "load_zarr"),
    "open",
}
# what a line passes on beside volumes, tried in objects/test_line_objects.py
LOADS_OBJECTS = {
    "load_json": JsonValue,
    "load_points": Points,
    "load_skeleton": SkeletonSet,
    "load_synapses": Synapses,
}
OF_AFFINITIES_AND_LABELS = {"save_pychunkedgraph"}  # tried in test_save_pychunkedgraph.py
SAVES_OBJECTS = {"save_annotations", "save_points", "save_swc", "save_synapses"}
# chunkflow's ways with objects and indexes of these, tried in objects/test_fragments.py and test_index.py
OF_FRAGMENTS = {"aggregate_skeleton_fragments", "download_meshes", "index_database", "index_objects"}
SINKS = {
    "contrast_levels": {"output": "levels"},
    "create_info": {"volume_path": "layer", "block_size": (4, 8, 8), "voxel_size": (8, 8, 8)},
    "copy_objects": {"source": "labels", "output": "copy"},
    "detect_points": {"output": "points.h5", "min_distance": 1},
    "download_mesh": {"layer": "labels", "output": "meshes", "labels": (5,)},
    "download_skeleton": {"layer": "labels", "output": "skeletons", "labels": (5,)},
    "evaluate_segmentation": {},
    "mesh": {"output": "meshes"},
    "mesh_fragments": {"output_path": "layer"},
    "region_properties": {"output": "regions.csv"},
    "roi": {},
    "save": {"url": "layer"},
    "save_h5": {"file_name": "a.h5"},
    "save_npy": {"file_name": "a.npy"},
    "save_nrrd": {"file_name": "a.nrrd"},
    "save_pngs": {"output_path": "pngs"},
    "save_precomputed": {"volume_path": "layer"},
    "save_tif": {"file_name": "a.tif"},
    "save_zarr": {"store": "a.zarr"},
    "skeletonize": {"output": "skeletons"},
    "statistics": {},
    "voxel_counts": {},
}


INTO_LAYERS = {
    "downsample": {"levels": 2},
    "downsample_upload": {"stop_mip": 2},
    "fill": {"start": (0, 0, 0), "size": (1, 2, 3)},
}


# what says which boxes a line works on, tried in test_tasks.py
OF_TASKS = {
    "adjust_bbox",
    "cloud_watch",
    "create_bbox",
    "delete_task_in_queue",
    "fetch_task_from_file",
    "fetch_task_from_sqs",
    "generate_tasks",
    "mark_complete",
    "mesh_manifest",
    "setup_env",
    "skip_all_zero",
    "skip_task_by_blocks_in_volume",
    "skip_task_by_file",
}


@pytest.fixture(autouse=True)
def _plugin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.py").write_text(PLUGIN)
    (tmp_path / "labels.py").write_text("def execute(chunk):\n    return chunk % 3\n")
    coarse = Volume.from_array(np.arange(12 * 20, dtype=np.uint8).reshape(6, 5, 8) % 3, voxel_size=(120, 16, 16))
    coarse.save(tmp_path / "mask").run(progress=False)
    (tmp_path / "volumes.json").write_text('{"0-13_6-20_-4-5": 3, "13-20_6-20_-2-5": 4}')
    (tmp_path / "consensus.json").write_text('{"3": {"70000": [1, 2]}, "4": {"70000": [7], "70001": [8]}}')
    (tmp_path / "levels").mkdir()
    for z in range(-4, 9):
        (tmp_path / "levels" / str(z)).write_text(json.dumps({"levels": list(range(256))}))


def _inputs(operator):
    """How many volumes an operator is tried with: two of any number, and none of another kind."""
    return 1 if operator.name in ("agglomerate", "watershed") else len(operator.inputs[:2])


class Example(OperatorSuite):
    """The suite of one row of the table."""

    name: ClassVar[str]

    def apply(self, volume):
        operator = load_operator(self.name)
        return operator.function(*[volume] * _inputs(operator), **TRANSFORMS[self.name][2])

    def values(self, random):
        return (
            random.integers(0, 3, self.shape, "uint8")
            if self.name in ("connected_components", "fill_segmentation_holes")
            else super().values(random)
        )


for _name, (_dtype, _channels, _) in TRANSFORMS.items():
    _title = "Test" + _name.title().replace("_", "")
    globals()[_title] = type(_title, (Example,), {"name": _name, "dtype": _dtype, "channels": _channels})


def test_every_operator_is_in_the_table():
    of_objects = {*LOADS_OBJECTS, *SAVES_OBJECTS, *OF_FRAGMENTS, *OF_AFFINITIES_AND_LABELS}
    known = {*TRANSFORMS, *SOURCES, *NEEDS_FILES, *SINKS, *INTO_LAYERS, *OF_TASKS, *of_objects}
    assert set(operator_names()) == known


@pytest.mark.parametrize("name", operator_names())
def test_operator_says_what_it_does(name):
    operator = load_operator(name)
    assert operator.summary.endswith(".")
    assert len(operator.summary) <= 100
    undescribed = [p.name for p in (*operator.inputs, *operator.parameters) if not p.help]
    assert not undescribed
    of_tasks = (Tasks, AfterTask, BoxTask, BoxTask | None)
    assert operator.returns in (of_tasks if name in OF_TASKS else (Volume, Job, LOADS_OBJECTS.get(name)))


@pytest.mark.parametrize("name", SINKS)
def test_sinks_return_a_job_and_write_nothing(name, tmp_path):
    before = sorted(tmp_path.iterdir())
    volume = Volume.from_array(np.ones(SHAPE, np.uint8))
    operator = load_operator(name)
    job = operator.function(*[volume] * len(operator.inputs), **SINKS[name])
    assert isinstance(job, Job)
    str(job.plan())
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", [*TRANSFORMS, *SINKS])
def test_calling_an_operator_does_not_touch_what_it_reads(name, tmp_path, monkeypatch):
    dtype, channels, arguments = TRANSFORMS.get(name, ("uint8", None, SINKS.get(name)))
    array = np.ones(SHAPE if channels is None else (channels, *SHAPE), dtype)
    Volume.from_array(array, voxel_size=(8, 8, 8)).save(tmp_path / "source.zarr").run(progress=False)
    operator = load_operator(name)
    volume = load_operator("open").function(tmp_path / "source.zarr")
    shutil.rmtree(tmp_path / "source.zarr")
    if not name.startswith("save"):  # which looks at where it writes to
        monkeypatch.setattr("daskflow.stores.kvstore.resolved", lambda _: pytest.fail("a link was looked for"))
    assert isinstance(operator.function(*[volume] * _inputs(operator), **arguments), operator.returns)


@pytest.mark.parametrize("name", INTO_LAYERS)
def test_sinks_into_the_volumes_own_layer_return_a_job_and_write_nothing(name, tmp_path):
    Volume.from_array(np.ones(SHAPE, np.uint8)).save(tmp_path / "layer").run(progress=False)
    before = sorted(tmp_path.rglob("*"))
    job = load_operator(name).function(load_operator("open").function(tmp_path / "layer"), **INTO_LAYERS[name])
    assert isinstance(job, Job)
    str(job.plan())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", operator_names())
def test_help_of_every_command(name):
    from click.testing import CliRunner

    from daskflow.cli.app import app

    result = CliRunner().invoke(app, [load_operator(name).command, "--help"])
    assert result.exit_code == 0, result.output
    assert load_operator(name).summary.split()[0] in result.output


def test_importing_the_operators_loads_no_heavy_package():
    code = (
        "import sys\nfrom daskflow.volume import load_operator, operator_names\n"
        "[load_operator(name) for name in operator_names()]\n"
        "print([m for m in ('torch', 'cupy', 'neuroglancer', 'h5py', 'kimimaro', 'zmesh') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
