import sys

import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.operators.aliases import SHIPPED
from daskflow.operators.tasks.plugin import Chunk, parse_arguments
from daskflow.operators.tasks.plugin.passed import handed
from daskflow.stores.objects.located import JsonValue, Points, SkeletonSet, TaskBox
from daskflow.stores.objects.skeleton_files import Skeleton
from daskflow.stores.objects.synapses import Synapses


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return name

    return write


def type_line(line, status=0):
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == status, result.output
    return result.output


def volume_of(array, **spec):
    return daskflow.open(np.asarray(array), **spec).with_block((5, 6, 7))


IMAGE = np.random.default_rng(0).integers(0, 255, (12, 14, 16)).astype(np.uint8)


def test_plugin_that_crops_shifts_the_offset_and_keeps_the_voxel_size(write):
    name = write("def execute(chunk):\n    return chunk[2:-2, 2:-2, 2:-2] + 1\n")
    result = daskflow.plugin(volume_of(IMAGE, voxel_offset=(10, 20, 30), voxel_size=(40, 4, 4)), file=name)
    assert result.box.start == (12, 22, 32)
    assert result.voxel_size == (40, 4, 4)
    np.testing.assert_array_equal(result.data.compute(), IMAGE[2:-2, 2:-2, 2:-2] + 1)


def test_median_plugin_with_context_equals_the_whole(write):
    from scipy import ndimage

    name = write(
        "from scipy.ndimage import median_filter\n"
        "def execute(chunk, size=(3, 1, 1), mode='reflect'):\n"
        "    return median_filter(chunk, size=size, mode=mode)\n"
    )
    result = daskflow.plugin(volume_of(IMAGE), file=name, args="size=(3,3,1);mode=nearest", depth=1)
    expected = ndimage.median_filter(IMAGE, size=(3, 3, 1), mode="nearest")
    np.testing.assert_array_equal(result.data.compute(), expected)


def test_plugin_may_change_its_input_and_import_chunkflow(write):
    name = write(
        "from chunkflow.chunk import Chunk\n"
        "def execute(chunk):\n"
        "    chunk *= 2\n"
        "    return Chunk(chunk.array, voxel_offset=chunk.voxel_offset)\n"
    )
    source = IMAGE.copy()
    result = daskflow.plugin(volume_of(source), file=name)
    np.testing.assert_array_equal(result.read(), IMAGE * 2)
    np.testing.assert_array_equal(source, IMAGE)


def test_plugin_takes_several_volumes_and_returns_channels(write):
    name = write("import numpy as np\ndef execute(a, b):\n    return np.stack([a, b]).astype('float32')\n")
    result = daskflow.plugin(volume_of(IMAGE), volume_of(255 - IMAGE), file=name.removesuffix(".py"))
    assert (result.channels, result.dtype) == (2, np.float32)
    np.testing.assert_array_equal(result.data.compute(), np.stack([IMAGE, 255 - IMAGE]).astype("float32"))


def test_plugin_knows_where_its_chunk_lies(write):
    name = write("import numpy as np\ndef execute(chunk):\n    return np.full(chunk.shape, chunk.voxel_offset[0])\n")
    result = daskflow.plugin(volume_of(IMAGE, voxel_offset=(7, 0, 0)).with_block((3, 14, 16)), file=name)
    assert result.data.compute()[:, 0, 0].tolist() == [7] * 3 + [10] * 3 + [13] * 3 + [16] * 3


def test_plugin_is_found_in_the_folder_of_chunkflow(write, tmp_path, monkeypatch):
    (tmp_path / "plugins").mkdir()
    write("def execute(chunk):\n    return 255 - chunk\n", "plugins/inverse.py")
    monkeypatch.setenv("CHUNKFLOW_PLUGIN_DIR", str(tmp_path / "plugins"))
    np.testing.assert_array_equal(daskflow.plugin(volume_of(IMAGE), file="inverse").read(), 255 - IMAGE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\n", "defines no function execute"),
        ("def execute(chunk)\n", "does not run"),
        ("import nothing_of_this_name\n", "does not run"),
        ("def execute(chunk):\n    raise KeyError('no')\n", "failed on ones.*KeyError"),
        ("def execute(chunk):\n    return chunk[:-1]\n", "same margin on both sides"),
        ("def execute(chunk):\n    return [chunk.bbox.string]\n", "returned str"),
        ("def execute(chunk):\n    return chunk.transpose()\n", "returned Chunk of shape"),
        ("import sys\ndef execute(chunk):\n    sys.exit()\n", "ended Python"),
        ("raise SystemExit\n", "does not run"),
        ("from chunkflow.flow import main\n", "no chunkflow.flow for plugins"),
    ],
)
def test_plugin_that_cannot_work_is_refused_before_anything_runs(write, text, words):
    with pytest.raises(ParameterError, match=words):
        daskflow.plugin(volume_of(IMAGE), file=write(text))


def test_missing_plugin_names_the_places(write):
    with pytest.raises(ParameterError, match=r"nowhere\.py"):
        daskflow.plugin(volume_of(IMAGE), file="nowhere")


def test_arguments_are_literals_or_text():
    assert parse_arguments("size=(3,1,1);mode=reflect") == {"size": (3, 1, 1), "mode": "reflect"}
    assert parse_arguments("just text") == {"args": "just text"}
    assert parse_arguments(None) == {}


def test_chunk_keeps_its_place_through_arithmetic():
    chunk = Chunk(np.ones((2, 3, 4)), voxel_offset=(1, 2, 3), voxel_size=(40, 4, 4), layer_type="image")
    assert (chunk + 1).voxel_offset == (1, 2, 3)
    assert (chunk * chunk).layer_type == "image"
    assert str(chunk.bbox) == "1-3_2-5_3-7"


# plugins in the style of those that come with chunkflow: what they ask of a chunk, and how they return results
STYLES = {
    "a list of one": "def execute(chunk):\n    return [255 - chunk]\n",
    "its array replaced": (
        "import numpy as np\nfrom chunkflow.chunk import Chunk\n"
        "def execute(img: Chunk, top: int = 255):\n"
        "    assert img.is_image and not img.is_segmentation and np.issubdtype(img.dtype, np.uint8)\n"
        "    table = (top - np.arange(256)).astype(np.uint8)\n"
        "    img.array = table[img.array]\n    return img\n"
    ),
    "a copy by sections": (
        "import chunkflow.chunk as parts\n"
        "def execute(chunk: parts.Chunk, inplace=False):\n"
        "    chunk = chunk if inplace else chunk.clone()\n"
        "    for z in range(chunk.shape[-3]):\n        chunk.array[z, :, :] = 255 - chunk.array[z]\n"
        "    return chunk\n"
    ),
    "its properties kept": (
        "from chunkflow.chunk import Chunk\n"
        "def execute(seg: Chunk):\n"
        "    result = Chunk((255 - seg.array))\n    result.set_properties(seg.properties)\n    return [result, ]\n"
    ),
    "by its box": (
        "from chunkflow.lib.bounding_boxes import BoundingBox, Cartesian\n"
        "def execute(chunk):\n"
        "    from chunkflow.chunk.probability_map import ProbabilityMap\n"
        "    half = BoundingBox(chunk.start, Cartesian(*chunk.voxel_stop) - (0, 1, 0))\n"
        "    assert chunk.cutout(half).bbox.string == half.string and chunk.bounding_box.shape == chunk.shape\n"
        "    assert (chunk.voxel_offset + 1).z == chunk.ndoffset[0] + 1 == chunk.slices[0].start + 1\n"
        "    return chunk.from_array(255 - chunk[...], chunk.bbox, voxel_size=chunk.voxel_size)\n"
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_plugins_of_chunkflows_styles_run_in_any_blocks(write, style):
    volume = volume_of(IMAGE, voxel_offset=(10, 20, 30), voxel_size=(40, 4, 4), layer_type="image")
    result = daskflow.plugin(volume, file=write(STYLES[style]))
    assert (result.box, result.dtype, result.voxel_size) == (volume.box, np.uint8, (40, 4, 4))
    assert (result.channels, result.layer_type) == (None, "image")
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), 255 - IMAGE)
    assert "chunkflow" not in sys.modules


def test_several_results_come_of_one_run(write):
    text = (
        "import numpy as np\nruns = []\n"
        "def execute(a, b):\n"
        "    runs.append(1)\n"
        "    return a, np.stack([b * 0.5, b * 2]).astype('float32'), np.full(a.shape, len(runs), 'uint16')\n"
    )
    first, second, third = daskflow.plugin(volume_of(IMAGE), volume_of(255 - IMAGE), file=write(text))
    assert [(one.dtype, one.channels) for one in (first, second, third)] == [
        (np.uint8, None),
        (np.float32, 2),
        (np.uint16, None),
    ]
    np.testing.assert_array_equal(first.data.compute(scheduler="synchronous"), IMAGE)
    half, double = second.read()
    np.testing.assert_array_equal(half, np.float32(255 - IMAGE) / 2)
    np.testing.assert_array_equal(double, np.uint8(2) * (255 - IMAGE))
    job = daskflow.merge([one.save(f"out{n}") for n, one in enumerate((first.with_block((12, 14, 16)), third))])
    before = third.read().max()
    assert job.run(progress=False).ok
    assert daskflow.open("out1").read().max() == before + 1


def test_several_results_keep_their_values_in_any_byte_order(write):
    text = "def execute(chunk):\n    return chunk.array.astype('>u2'), chunk.array * 2.5\n"
    swapped, scaled = daskflow.plugin(volume_of(IMAGE), file=write(text))
    np.testing.assert_array_equal(swapped.read(), IMAGE)
    np.testing.assert_array_equal(scaled.read(), IMAGE * 2.5)


@pytest.mark.parametrize(
    "result",
    [
        "array.astype('float32' if trial else 'int32'), array",
        "np.stack([array] * (2 if trial else 1)), np.stack([array] * (1 if trial else 2))",
        "array.astype('uint8' if trial else 'uint16')",
    ],
)
def test_results_unlike_those_of_the_trial_are_refused(write, result):
    first = "import numpy as np\ndef execute(chunk):\n    array = chunk.array\n    trial = array.max() == 1\n"
    text = f"{first}    return {result}\n"
    made = daskflow.plugin(volume_of(IMAGE), file=write(text))
    one = made[0] if isinstance(made, tuple) else made
    with pytest.raises(ParameterError, match="the same dtypes, channels and margins for every block"):
        one.read()


def test_a_chunk_says_where_it_lies(write):
    text = "def execute(chunk):\n    return chunk.crop_margin((1, 0, 2, 0, 3, 0))\n"
    result = daskflow.plugin(volume_of(IMAGE, voxel_offset=(10, 20, 30)), file=write(text))
    assert str(result.box) == "11-22_20-31_32-46"
    np.testing.assert_array_equal(result.data.compute(scheduler="synchronous"), IMAGE[1:, :-3, 2:])


def test_labels_of_an_image_are_a_segmentation(write):
    text = "def execute(chunk):\n    return (chunk > 100).astype('uint32')\n"
    assert daskflow.plugin(volume_of(IMAGE, layer_type="image"), file=write(text)).spec.kind == "segmentation"


def test_none_and_no_volume_are_arguments(write):
    text = "import numpy as np\ndef execute(chunk, mask):\n    assert mask is None\n    return chunk\n"
    np.testing.assert_array_equal(daskflow.plugin(volume_of(IMAGE), None, file=write(text)).read(), IMAGE)
    text = (
        "import numpy as np\nfrom chunkflow.chunk import Chunk\n"
        "def execute(size=2):\n    return Chunk(np.ones((size,) * 3, 'uint8'), voxel_offset=(7, 8, 9))\n"
    )
    made = daskflow.plugin(file=write(text), args="size=3")
    assert str(made.box) == "7-10_8-11_9-12"
    made = daskflow.plugin(file=write(text.replace("(7, 8, 9)", "np.array([7, 8, 9])")), args="size=3")
    assert str(made.box) == "7-10_8-11_9-12"


def test_a_plugin_that_returns_nothing_is_run_on_every_block(write, tmp_path):
    text = (
        "from pathlib import Path\n"
        "def execute(chunk, directory):\n"
        "    Path(directory, chunk.bbox.string).write_text(str(chunk.max()))\n"
    )
    (tmp_path / "seen").mkdir()
    job = daskflow.plugin(volume_of(IMAGE), file=write(text), args=f"directory={tmp_path / 'seen'}", depth=1)
    for file in (tmp_path / "seen").iterdir():
        file.unlink()  # of the trial
    assert job.run(progress=False).ok
    seen = [(file.name, int(file.read_text())) for file in (tmp_path / "seen").iterdir()]
    boxes = {daskflow.BoundingBox.from_string(name): most for name, most in seen}
    grid = volume_of(IMAGE).grid
    assert set(boxes) == {box.grow(1).clip(grid.box) for box in grid}
    assert all(IMAGE[box.slices(grid.box)].max() == most for box, most in boxes.items())


def test_plugins_of_the_command_line(write):
    write("def execute(a, b):\n    return a, b + 1\n", "two.py")
    write("import numpy as np\ndef execute():\n    return [np.full((4, 5, 6), 3, 'uint8')]\n", "make.py")
    line = "plugin -f make -o x plugin --name both -f two -i x,x save a"
    failing = CliRunner().invoke(app, line.split())
    assert "both: it returns 2 volumes" in failing.output
    line = "plugin -f make -o x plugin --name both -f two -i x,x -o y,z save -i y a save -i z b"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    assert (daskflow.open("a").read() == 3).all()
    assert (daskflow.open("b").read() == 4).all()


def test_chunkflows_own_plugins_are_operators_by_their_names():
    arguments = {"median_filter": "size=(3,3,1);mode=reflect", "stretch_intensity": "min_threshold=20"}
    affinities = volume_of(np.zeros((3, 4, 5, 6), np.float32))
    for name, (called, own) in SHIPPED.items():
        given = parse_arguments(arguments.get(name))
        image = affinities if name == "agglomerate" else volume_of(IMAGE, voxel_size=(40, 4, 4))
        here = daskflow.plugin(image, file=name, args=arguments.get(name))
        same = getattr(daskflow, called)(image, **own, **given)
        assert type(here) is type(same)
        if name in ("inverse", "median_filter", "stretch_intensity", "transpose"):
            np.testing.assert_array_equal(here.read(), same.read())
    with pytest.raises(ParameterError, match=r"plugin inverse, inverse here: .*top"):
        daskflow.plugin(image, file="inverse", args="top=3")


BRIGHT = """
import numpy as np
from chunkflow.point_cloud import PointCloud
from chunkflow.synapses import Synapses

def execute(chunk, kind="array"){says}:
    points = np.argwhere(np.asarray(chunk) > 250) + np.array(chunk.voxel_offset)
    if kind == "none":
        return None
    if kind == "local":
        return points - np.array(chunk.voxel_offset)
    if kind == "mixed":
        return points, chunk
    if kind == "two":
        return PointCloud(points, chunk.voxel_size), Synapses(points, np.insert(points, 0, 0, axis=1))
    return points if kind == "array" else PointCloud(points, chunk.voxel_size)
"""


def test_points_of_a_plugin_are_those_of_the_whole_volume_in_any_blocks(write):
    right = np.argwhere(IMAGE > 250) + np.array([1, 2, 3])
    for at, says in enumerate(("", " -> PointCloud")):
        name = write(BRIGHT.replace("{says}", says), f"bright{at}.py")
        for kind in ("array", "cloud"):
            volume = daskflow.open(IMAGE, voxel_offset=(1, 2, 3), voxel_size=(40, 4, 4)).with_block((5, 6, 7))
            found = daskflow.plugin(volume, file=name, args=f"kind={kind}")
            assert isinstance(found, Points)
            assert found.voxel_size == (40, 4, 4)
            np.testing.assert_array_equal(found.points, right)
    points, synapses = daskflow.plugin(volume, file=name, args="kind=two")
    np.testing.assert_array_equal(points.points, right)
    np.testing.assert_array_equal(synapses.post[:, 1:], right)
    assert isinstance(synapses, Synapses)
    assert synapses.voxel_size == (40, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"args": "kind=local"}, r"is outside of 50-62_0-14_0-16 .*add the voxel_offset"),
        ({"args": "kind=mixed"}, "points or synapses as 1 of 2 results"),
        ({"depth": 2}, "leave depth=2 out"),
    ],
)
def test_points_that_cannot_be_those_of_the_volume_are_refused(write, options, message):
    name = write(BRIGHT.replace("{says}", " -> PointCloud"))
    with pytest.raises(ParameterError, match=message):
        daskflow.plugin(volume_of(IMAGE, voxel_offset=(50, 0, 0)), file=name, **options)


def test_a_volume_that_no_memory_holds_is_not_handed_to_what_finds_points(write):
    name = write(BRIGHT.replace("{says}", ""))
    with pytest.raises(ParameterError, match=r"all of 0-1048576_0-1048576_0-1024 .*1.13 PB in"):
        daskflow.plugin(daskflow.create_chunk(size=(2**20, 2**20, 2**10)), file=name)


def test_a_line_finds_points_in_the_box_of_each_task(write, tmp_path):
    write(BRIGHT.replace("{says}", ""), "bright.py")
    daskflow.save(volume_of(IMAGE), tmp_path / "image.h5").run(progress=False)
    tasks = "generate-tasks -s 0 0 0 -c 6 14 16 -g 2 1 1 load-h5 -f image.h5 plugin -f bright -i chunk"
    type_line(f"{tasks} -o point_cloud save-points -f points/")
    type_line(f"{tasks} -a kind=two -o p,s save-points -i p -f two/ save-synapses -i s -f syns.json")
    for z in (0, 6):
        box = f"{z}-{z + 6}_0-14_0-16"
        right = np.argwhere(IMAGE[z : z + 6] > 250) + np.array([z, 0, 0])
        for file in ("points", "two"):
            np.testing.assert_array_equal(daskflow.load_points(file_path=f"{file}/{box}.h5").points, right)
        np.testing.assert_array_equal(daskflow.load_synapses(file_path=f"syns_{box}.json").pre, right)


@pytest.mark.parametrize(("flip", "order"), [("False", "zyx"), ("0", "zyx"), ("True", "xyz")])
def test_chunkflows_options_of_agglomeration_are_those_of_the_operator(flip, order):
    affinities = volume_of(np.random.default_rng(1).random((3, 4, 5, 6), np.float32))
    args = f"flip_channel={flip};aff_threshold_low=0;aff_threshold_high=0.9;threshold=0.4"
    here = daskflow.plugin(affinities, file="agglomerate", args=args).read()
    right = {one: daskflow.agglomerate(affinities, order=one, low=0, high=0.9, threshold=0.6) for one in ("xyz", "zyx")}
    np.testing.assert_array_equal(here, right[order].read())
    assert (right["xyz"].read() != right["zyx"].read()).any()


OBJECTS = """
import numpy as np

def execute(chunk, table, found=None):
    added = table["added"] + table.pop("once", 0)
    if found is not None:
        added += int(found.points.sum())
        found.points[:] = 9
    return chunk + np.uint8(added)
"""


def test_objects_are_handed_to_every_block_and_none_sees_what_another_changed(write):
    name = write(OBJECTS)
    table = JsonValue(b'{"added": 3, "once": 4}')
    points = Points(np.array([(1, 2, 3)]))
    result = daskflow.plugin(volume_of(IMAGE), table, points, file=name)
    np.testing.assert_array_equal(result.read(), IMAGE + np.uint8(13))
    np.testing.assert_array_equal(result.with_block(12).read(), IMAGE + np.uint8(13))
    assert points.points.tolist() == [[1, 2, 3]]


def test_what_the_content_is_belongs_to_a_jobs_fingerprint(write, tmp_path):
    name = write(OBJECTS)
    for added in (1, 2, 2):
        volume = daskflow.plugin(volume_of(IMAGE), JsonValue(b'{"added": %d}' % added), file=name)
        report = daskflow.save(volume, tmp_path / "out", overwrite=added == 2).run(progress=False)
        assert report.ok
        np.testing.assert_array_equal(daskflow.open(tmp_path / "out").read(), IMAGE + np.uint8(added))


def test_synapses_skeletons_and_boxes_are_handed_as_chunkflow_has_them():
    confidences = {"pre_confidence": np.array([0.5])}
    found = handed(Synapses(np.array([(1, 2, 3)]), np.array([(0, 4, 5, 6)]), (40, 4, 4), confidences, ("ada",)))
    assert (found.pre.tolist(), found.post.tolist(), found.users) == ([[1, 2, 3]], [[0, 4, 5, 6]], ["ada"])
    assert (found.resolution.z, found.pre_confidence.tolist(), found.post_users) == (40, [0.5], None)
    skeleton = Skeleton(np.zeros((1, 3), np.float32), np.zeros((0, 2), np.uint32))
    skeletons = handed(SkeletonSet({7: skeleton}))
    assert list(skeletons) == [7]
    assert skeletons[7].vertices is not skeleton.vertices
    box = handed(TaskBox(daskflow.BoundingBox((1, 2, 3), (4, 6, 8))))
    assert (box.string, box.start.x, box.shape) == ("1-4_2-6_3-8", 3, (3, 4, 5))


def test_a_line_of_tasks_hands_each_its_box_and_its_json(write, tmp_path):
    write(
        "import numpy as np\n"
        "def execute(chunk, table, bbox):\n"
        "    return np.full(chunk.shape, table['value'] + bbox.start.z, 'uint8')\n"
    )
    daskflow.save(volume_of(IMAGE), tmp_path / "image.h5").run(progress=False)
    (tmp_path / "tables").mkdir()
    for z, value in ((0, 10), (6, 20)):
        (tmp_path / "tables" / f"{z}-{z + 6}_0-14_0-16.json").write_text(f'{{"value": {value}}}')
    tasks = "generate-tasks -s 0 0 0 -c 6 14 16 -g 2 1 1 load-h5 -f image.h5"
    type_line(f"{tasks} load-json -f tables/ plugin -f mine -i chunk,dict,bbox save out.h5")
    for z, value in ((0, 10), (6, 26)):
        assert (daskflow.open(tmp_path / f"out_{z}-{z + 6}_0-14_0-16.h5").read() == value).all()
    write(
        "from pathlib import Path\n"
        "def execute(chunk, bbox):\n"
        "    if chunk.max() > 1:  # which the trial's is not\n"
        "        Path(f'{chunk.bbox.string} {bbox.string}.seen').touch()\n",
        "note.py",
    )
    type_line(f"{tasks} plugin -f note -i chunk,bbox")
    boxes = [f"{z}-{z + 6}_0-14_0-16" for z in (0, 6)]
    assert sorted(file.stem for file in tmp_path.glob("*.seen")) == [f"{box} {box}" for box in boxes]
    assert "none of" in type_line(f"{tasks} read-json -f other/ plugin -f mine -i chunk,dict save o.h5", status=1)
    line = "open image.h5 load-json -f tables/0-6_0-14_0-16.json plugin -f mine -i chunk,dict,bbox save o.h5"
    assert "no volume 'bbox'" in type_line(line, status=1)
    assert "inverse takes volumes, and is given <JsonValue" in type_line(
        "open image.h5 load-json -f tables/0-6_0-14_0-16.json plugin -f inverse -i chunk,dict save o.h5", status=1
    )


@pytest.mark.parametrize("text", ['{"a": 1', "[" * 100_000, "\udce4", ""])
def test_damaged_json_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text, errors="surrogateescape")
    with pytest.raises(CorruptChunkError, match=r"a.json holds no JSON"):
        daskflow.load_json(file_path=str(tmp_path / "a.json"))
