import functools

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference

from daskflow.errors import ParameterError
from daskflow.geometry import BlockGrid, BoundingBox
from daskflow.inference.augment import augmented
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid

PATCH = (3, 6, 6)


def noise(shape=(2, 1, *PATCH), seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def edges(patches):
    """Affinities to the voxel before in x, y and z, which know no direction, and the image itself."""
    shape = patches[:, 0].shape
    answer = np.zeros((shape[0], 4, *shape[1:]), np.float32)
    for channel, axis in enumerate((3, 2, 1)):
        inner = (slice(None),) * axis + (slice(1, None),)
        answer[(slice(None), channel)][inner] = np.abs(np.diff(patches[:, 0], axis=axis))
    answer[:, 3] = patches[:, 0]
    return answer


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_affinities_of_every_variant_are_put_back_to_their_own_voxels(convert):
    answer = lambda patches: convert(edges(patches))  # noqa: E731
    found = augmented(answer, noise(), affinities=True)
    assert type(found) is type(convert(noise()))
    np.testing.assert_allclose(np.asarray(found), edges(noise()), rtol=1e-6)


def test_every_variant_is_another_patch_and_every_answer_is_turned_back():
    seen = []

    def identity(patches):
        seen.append(patches.copy())
        return patches

    np.testing.assert_allclose(augmented(identity, noise(), affinities=False), noise(), rtol=1e-6)
    assert len({patches.tobytes() for patches in seen}) == 8


def test_constant_channels_stay_as_they_are():
    constant = np.float32([0.1, 0.2, 0.3])[:, None, None, None]
    found = augmented(lambda patches: np.repeat(patches * 0, 3, axis=1) + constant, noise(), affinities=False)
    np.testing.assert_allclose(found, np.broadcast_to(constant, found.shape), rtol=1e-6)


def test_an_uneven_answer_becomes_the_mean_over_the_group():
    ramp = np.arange(6, dtype=np.float32)  # grows in x, whatever the image
    found = augmented(lambda patches: patches * 0 + ramp, noise(), affinities=False)
    np.testing.assert_allclose(found, 2.5, rtol=1e-6)


@pytest.mark.parametrize("augment", ["channels", "affinities"])
def test_the_result_does_not_depend_on_the_blocks(model_file, augment):
    model = model_file(
        "import numpy as np\n"
        "class PatchInferencer:\n"
        "    def __init__(self, weight_path, mask): pass\n"
        "    def __call__(self, patches):\n"
        "        ramp = np.arange(patches.shape[-1])\n"
        "        return np.concatenate([patches * ramp, patches**2, patches + ramp], 1)\n"
    )
    box = BoundingBox((0, 0, 0), (5, 15, 17))
    grid = PatchGrid(box, PATCH, PATCH, (1, 3, 2))
    network = Network("universal", PATCH, PATCH, model=model, augment=augment, batch_size=2)
    array = noise(box.shape)
    answer = functools.partial(infer, grid=grid, network=network)
    whole = answer(array, box=box, read_box=box)
    for block in BlockGrid(box, (4, 8, 9)):
        reads = grid.reads(block)
        part = answer(array[reads.slices(box)], box=block, read_box=reads)
        np.testing.assert_allclose(part, whole[(slice(None), *block.slices(box))], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"input_patch": (3, 6, 8), "output_patch": (3, 6, 8)}, r"turns patches in y and x.*\(3, 6, 8\)"),
        ({"output_patch": (3, 5, 5)}, "very middle"),
        ({"blend": "none"}, "blend 'none'"),
        ({"augment": "affinities", "channels": 2}, "the net answers 2"),
        ({"augment": "some"}, "augment 'some' is none of"),
    ],
)
def test_what_cannot_be_turned_is_refused(options, match):
    with pytest.raises(ParameterError, match=match):
        Network("identity", **({"input_patch": PATCH, "output_patch": PATCH, "augment": "channels"} | options))


def test_a_gaussian_bump_gives_what_monai_gives(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\ntorch.manual_seed(0)\nInstantiatedModel = torch.nn.Conv3d(1, 2, 3, padding=1)\n"
    )
    patch, box = (8, 16, 16), BoundingBox((0, 0, 0), (21, 50, 37))
    grid = PatchGrid(box, patch, patch, (2, 4, 4))
    options = {"channels": 2, "device": "cpu", "bump": "gaussian"}
    network = Network("pytorch", patch, patch, model=ModelFile.at(tmp_path / "net.py"), **options)
    array = noise(box.shape)
    with torch.inference_mode():
        monai = sliding_window_inference(
            torch.from_numpy(array)[None, None], patch, 1, network.engine()._model.net, overlap=0.25, mode="gaussian"
        )
    found = infer(array, box=box, read_box=box, grid=grid, network=network)
    np.testing.assert_allclose(found, monai[0].numpy(), rtol=1e-5, atol=1e-5)
