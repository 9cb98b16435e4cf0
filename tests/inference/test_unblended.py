"""Answers that are not blended: each voxel takes that of the patch in which it lies deepest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_blend import blocks, grids

from daskflow.errors import ModelError, ParameterError
from daskflow.geometry import BlockGrid
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.operators.inference.inference import inference
from daskflow.volume import Volume

CLASSES = '''
"""Answers classes that depend on the patch: where a voxel lies in it, and the patch's first voxel."""
import numpy as np


class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        self.shape = output_patch_mask.shape

    def __call__(self, patches):
        place = np.arange(np.prod(self.shape)).reshape(self.shape) % 251
        first = (patches[:, :1, 0, 0, 0] * 255).round()[..., None, None, None]
        return ((place + first) % 256).astype({dtype})
'''


@pytest.fixture(scope="session")
def classes(tmp_path_factory):
    """Model files that answer patch-dependent classes, by dtype."""
    folder = tmp_path_factory.mktemp("models")

    def write(dtype):
        path = folder / f"{dtype.replace('.', '_')}.py"
        path.write_text(CLASSES.replace("{dtype}", dtype))
        return ModelFile.at(path)

    return {dtype: write(dtype) for dtype in ("np.uint8", "np.int64", "bool", "np.float64", "np.complex64", "str")}


def expected(array, grid):
    """The answer of the patch with the greatest distance to its faces, the lower one where two are as deep."""
    size = grid.output_patch
    place = np.arange(np.prod(size)).reshape(size) % 251
    depth = np.stack(np.meshgrid(*[np.minimum(np.arange(n), n - 1 - np.arange(n)) for n in size], indexing="ij"))
    result = np.zeros(grid.covered.shape, np.uint8)
    deepest = np.full((3, *grid.covered.shape), -(10**6))
    for patch in grid.patches(grid.covered):
        inside = patch.output.clip(grid.covered)
        at, part = inside.slices(grid.covered), inside.slices(patch.output)
        index = [
            np.pad(np.arange(n), (max(0, n0 - a), max(0, b - n1)), mode="reflect")[max(0, a - n0) :][0]
            for n, n0, n1, a, b in zip(
                grid.box.shape, grid.box.start, grid.box.stop, patch.input.start, patch.input.stop, strict=True
            )
        ]
        seen = patch.input.clip(grid.box)
        answer = (place + int(array[tuple(index)])) % 256 * bool(array[seen.slices(grid.box)].any())
        deeper = (depth[(slice(None), *part)] >= deepest[(slice(None), *at)]).all(axis=0)
        strictly = (depth[(slice(None), *part)] > deepest[(slice(None), *at)]).any(axis=0)
        takes = deeper & strictly
        result[at][takes] = answer[part][takes]
        deepest[(slice(None), *at)][:, takes] = depth[(slice(None), *part)][:, takes]
    return result


def network_of(grid, model, **options):
    return Network("universal", grid.input_patch, grid.output_patch, channels=1, model=model, blend="none", **options)


@settings(max_examples=80)
@given(grid=grids(), block=blocks, batch=st.integers(1, 4), zeros=st.integers(0, 16))
def test_each_voxel_has_the_deepest_patchs_answer_whatever_the_blocks(classes, grid, block, batch, zeros):
    array = np.random.default_rng(0).integers(1, 256, grid.box.shape, dtype=np.uint8)
    array[..., :zeros] = 0
    network = network_of(grid, classes["np.uint8"], batch_size=batch)
    result = np.empty((1, *grid.covered.shape), np.uint8)
    for box in BlockGrid(grid.covered, block):
        reads = grid.reads(box)
        part = array[reads.slices(grid.box)]
        answer = infer(part, box=box, read_box=reads, grid=grid, network=network, dtype="uint8")
        result[(slice(None), *box.slices(grid.covered))] = answer
    np.testing.assert_array_equal(result[0], expected(array, grid))


@given(grid=grids())
def test_patches_own_every_voxel_once(grid):
    owners = np.zeros(grid.covered.shape, int)
    for patch in grid.patches(grid.covered):
        assert patch.owned in patch.output
        owners[patch.owned.slices(grid.covered)] += 1
    assert (owners == 1).all()


def run(model, **options):
    array = np.random.default_rng(0).integers(1, 256, (6, 20, 20), dtype=np.uint8)
    options = {"input_patch_size": (4, 8, 8), "output_patch_overlap": (2, 4, 4), "num_output_channels": 1} | options
    volume = Volume.from_array(array, voxel_size=(40, 4, 4)).with_block((3, 7, 9))
    return inference(volume, convnet_model=model.path, **options)


@pytest.mark.parametrize(
    ("dtype", "layer_type"),
    [
        ("np.uint8", "segmentation"),
        ("np.int64", "segmentation"),
        ("bool", "segmentation"),
        ("np.float64", "probability_map"),
    ],
)
def test_the_networks_own_type_is_kept(classes, dtype, layer_type):
    result = run(classes[dtype], blend="none")
    assert (result.dtype, result.layer_type) == (np.dtype(dtype.removeprefix("np.")), layer_type)
    np.testing.assert_array_equal(result.data.compute(), result.read())
    assert result.read().dtype == result.dtype


@pytest.mark.parametrize("dtype", ["np.uint8", "np.int64", "bool"])
def test_classes_are_not_blended(classes, dtype):
    result = run(classes[dtype])
    for ask in (result.read, result.expression.check):
        with pytest.raises(ModelError, match=r"answer probabilities.*--blend none"):
            ask()


@pytest.mark.parametrize("blend", ["bump", "none"])
@pytest.mark.parametrize(
    ("dtype", "match"), [("np.complex64", r"complex numbers.*complex64"), ("str", "expected numbers")]
)
def test_what_is_no_real_number_is_refused_by_name(classes, blend, dtype, match):
    with pytest.raises(ModelError, match=match):
        run(classes[dtype], blend=blend).read()


@pytest.mark.parametrize("margin", [(1, 3, 2), (0, 0, 5)])
def test_a_crop_margin_leaves_the_others_as_they_were(classes, margin):
    z, y, x = (slice(m, n - m) for m, n in zip(margin, (6, 20, 20), strict=True))
    cropped = run(classes["np.uint8"], blend="none", output_crop_margin=margin)
    np.testing.assert_array_equal(cropped.read(), run(classes["np.uint8"], blend="none").read()[:, z, y, x])


TORCH = """
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        return {body}

InstantiatedModel = Net()
"""


@pytest.mark.parametrize(
    ("body", "dtype"),
    [
        ("(x > 0.5).to(torch.uint8)", "uint8"),
        ("x > 0.5", "bool"),
        ("torch.cat([1 - x, x], 1).argmax(1, keepdim=True)", "int64"),
        ("x.double()", "float64"),
        ("x.half()", "float16"),
        ("x.bfloat16()", "float32"),
    ],
)
def test_torch_networks_keep_their_type_too(tmp_path, body, dtype):
    (tmp_path / "net.py").write_text(TORCH.format(body=body))
    result = run(ModelFile.at(tmp_path / "net.py"), framework="pytorch", blend="none", device="cpu", batch_size=3)
    assert result.dtype == dtype
    image = np.random.default_rng(0).integers(1, 256, (6, 20, 20), dtype=np.uint8) / 255
    wanted = image if dtype.startswith("float") else image > 0.5
    np.testing.assert_allclose(result.read()[0], wanted, atol=1e-2)


@pytest.mark.parametrize("body", ["x > 0.5", "x.long()", "x.byte()"])
def test_torch_classes_are_not_blended(tmp_path, body):
    (tmp_path / "net.py").write_text(TORCH.format(body=body))
    with pytest.raises(ModelError, match=r"answer probabilities.*--blend none"):
        run(ModelFile.at(tmp_path / "net.py"), framework="pytorch", device="cpu").read()


def test_nan_of_the_image_is_refused_where_classes_would_hide_it(classes):
    array = np.ones((4, 8, 16), np.float32)
    array[1, 2, 9] = np.nan
    options = {"input_patch_size": (4, 8, 8), "output_patch_overlap": (0, 0, 4), "num_output_channels": 1}
    volume = Volume.from_array(array, voxel_offset=(10, 20, 30))
    result = inference(volume, convnet_model=classes["np.uint8"].path, blend="none", **options)
    with pytest.raises(ParameterError, match=r"the image holds nan at voxel \(11, 22, 39\) zyx"):
        result.read()
