"""Networks with several inputs and several answers, each with channels of its own, and objects as networks."""

import numpy as np
import pytest

import daskflow
from daskflow.errors import ModelError, ParameterError
from daskflow.inference.network import Network

PATCH = (4, 8, 8)
TORCH = """
import torch

class Net(torch.nn.Module):
    def forward(self, image, pair):
        return {"sum": (image + pair).flip(1), "image": image}

InstantiatedModel = Net()
"""
UNIVERSAL = """
class PatchInferencer:
    def __init__(self, weight_path, mask): pass

    def __call__(self, image, pair):
        return {"sum": (image + pair)[:, ::-1], "image": image}
"""


@pytest.fixture
def volumes():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (6, 20, 20), np.uint8)
    pair = random.random((2, 6, 20, 20), np.float32)
    image[:, :10] = 0  # not run where all inputs are zero alone
    return image, pair


def answer(tmp_path, text, volumes, framework, **options):
    (tmp_path / "net.py").write_text(text)
    options = {"net_output": "sum,image", "num_output_channels": (2, 1)} | options
    return daskflow.inference(
        *map(daskflow.open, volumes),
        input_patch_size=PATCH,
        output_patch_overlap=(1, 3, 4),
        convnet_model=str(tmp_path / "net.py"),
        framework=framework,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize(("text", "framework"), [(TORCH, "pytorch"), (UNIVERSAL, "universal")])
def test_each_volume_is_an_input_and_answers_follow_each_other_as_channels(tmp_path, volumes, text, framework):
    image, pair = volumes
    result = answer(tmp_path, text, volumes, framework)
    assert (result.channels, result.layer_type) == (3, "probability_map")
    expected = np.concatenate([(image / 255 + pair)[::-1], image[None] / 255])
    np.testing.assert_allclose(result.compute(), expected, atol=1e-6)


def test_pre_process_may_make_one_input_of_them(tmp_path, volumes):
    text = TORCH.replace("(self, image, pair)", "(self, both)").replace('{"sum": (image + pair).flip(1), ', "both  # ")
    text += "\ndef pre_process(image, pair):\n    return torch.cat([torch.from_numpy(a) for a in (image, pair)], 1)\n"
    result = answer(tmp_path, text, volumes, "pytorch", net_output=None, num_output_channels=3)
    np.testing.assert_allclose(result.compute(), np.concatenate([volumes[0][None] / 255, volumes[1]]), atol=1e-6)


def test_answers_of_other_counts_or_shapes_are_refused_with_theirs(tmp_path, volumes):
    with pytest.raises(ModelError, match=r"'sum' \(Tensor 1x2x4x8x8\), 'image' \(Tensor 1x1x4x8x8\).*\(1, 2\)"):
        answer(tmp_path, TORCH, volumes, "pytorch", num_output_channels=(1, 2)).compute()
    cut = TORCH.replace('"image": image', '"image": image[..., :4]')
    with pytest.raises(ModelError, match="differ in their channels alone"):
        answer(tmp_path, cut, volumes, "pytorch").compute()
    with pytest.raises(ParameterError, match="2 answers, and net_output names 1: give one number for each"):
        answer(tmp_path, TORCH, volumes, "pytorch", net_output="sum")


def test_inputs_of_another_level_are_refused(volumes):
    one, two = (daskflow.open(array, voxel_size=3 * (size,)) for array, size in zip(volumes, (4, 8), strict=True))
    with pytest.raises(ParameterError, match=r"voxel sizes \(4.0, 4.0, 4.0\), \(8.0, 8.0, 8.0\) nm"):
        daskflow.inference(one, two, input_patch_size=PATCH, framework="identity", output_patch_overlap=(0, 0, 0))


class Scaled:
    """A network that lives in the process."""

    def __init__(self, factor, mask=None):
        self.factor = factor
        if mask is not None:
            self.output_patch_mask_numpy = mask

    def __eq__(self, other):  # and so without a hash
        return self is other

    def __call__(self, patches):
        return patches * self.factor


def prebuilt(model, **options):
    volume = daskflow.open(np.random.default_rng(0).random((6, 20, 20), np.float32))
    options = {"framework": "prebuilt", "num_output_channels": 1, "output_patch_overlap": (1, 3, 4)} | options
    return volume, daskflow.inference(volume, input_patch_size=PATCH, convnet_model=model, **options)


def test_an_object_is_a_network_and_what_it_holds_is_in_the_fingerprint(tmp_path):
    volume, result = prebuilt(Scaled(3))
    np.testing.assert_allclose(result.compute()[0], 3 * volume.compute(), rtol=1e-5)
    assert daskflow.save(result, tmp_path / "a.zarr").run(progress=False).ok
    same, other = (prebuilt(Scaled(factor))[1].expression.describe() for factor in (3, 4))
    assert result.expression.describe() == same != other


def test_an_object_with_a_mask_and_one_for_another_framework_are_refused():
    with pytest.raises(ModelError, match="multiplies its answers by a mask"):
        prebuilt(Scaled(1, mask=np.full(PATCH, 0.5)))[1].compute()
    for model, framework in ((Scaled(1), "pytorch"), (__file__, "prebuilt")):
        with pytest.raises(ParameterError, match="'prebuilt' takes an object"):
            prebuilt(model, framework=framework)
    with pytest.raises(ParameterError, match="'prebuilt' takes an object"):
        Network("prebuilt", PATCH, PATCH)
