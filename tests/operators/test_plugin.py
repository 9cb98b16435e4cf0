import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError
from daskflow.operators.tasks.plugin import Chunk, parse_arguments


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return name

    return write


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
        ("def execute(chunk):\n    return None\n", "same margin on both sides"),
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
