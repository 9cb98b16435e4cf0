from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
from safetensors import safe_open

from daskflow.demo.phantom import phantom

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def load(name):
    spec = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe():
    return load("train_affinities")


@pytest.fixture
def data(tmp_path):
    image, labels = phantom((40, 48, 80), seed=9)
    labels[32:] = 77
    tifffile.imwrite(tmp_path / "fib25_image.tif", image)
    with h5py.File(tmp_path / "fib25_labels.h5", "w") as file:
        file["main"] = labels
    return tmp_path


def options(recipe, data, *words):
    given = ["--data", str(data), "--output", str(data / "net.safetensors"), "--sections", "32", "--patch", "24"]
    return recipe.parse([*given, "--date", "2026-01-02", *words])


def test_training_lowers_the_loss_and_the_file_says_where_it_comes_from(recipe, data):
    losses = recipe.train(options(recipe, data, "--steps", "80", "--seed", "3", "--rate", "0.005"))
    assert len(losses) == 80
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    with safe_open(data / "net.safetensors", "pt") as file:
        header = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert header["script"] == "recipes/train_affinities.py"
    assert header["half"] == "z < 32; validation x >= 72 of 80"
    assert (header["seed"], header["steps"], header["date"]) == ("3", "80", "2026-01-02")
    assert header["torch"] == torch.__version__
    assert 0 < float(header["validation_loss"]) < 0.65
    net = load("affinity_unet").InstantiatedModel
    net.load_state_dict(weights)
    with torch.no_grad():
        out = net(torch.rand(1, 1, 16, 24, 32))
    assert out.shape == (1, 3, 16, 24, 32)
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_same_seed_gives_the_same_losses(recipe, data):
    first = recipe.train(options(recipe, data, "--steps", "4"))
    assert recipe.train(options(recipe, data, "--steps", "4")) == first
    assert recipe.train(options(recipe, data, "--steps", "4", "--seed", "1")) != first


def test_sections_of_the_other_half_are_never_used(recipe, data):
    half = recipe.load_half(options(recipe, data))
    assert half.image.shape == half.labels.shape == (32, 48, 80)
    image = tifffile.imread(data / "fib25_image.tif")
    np.testing.assert_allclose(half.image.numpy(), image[:32] / 255, rtol=1e-6)


def test_affinity_channels_are_x_y_z_to_the_lower_neighbour(recipe):
    for channel, axis in enumerate((2, 1, 0)):
        labels = torch.full((6, 6, 6), 2.0)
        labels.narrow(axis, 3, 3).fill_(3.0)
        target, known = recipe.affinities(labels, (1,))
        for other in range(3):
            cut = target[other].mean(dim=tuple(a for a in range(3) if a != axis))
            assert cut.tolist() == ([1, 1, 1, 0, 1, 1] if other == channel else [1] * 6)
        first = known[channel].mean(dim=tuple(a for a in range(3) if a != axis))
        assert first.tolist() == [0, 1, 1, 1, 1, 1]


def test_unknown_and_background_have_no_positive_affinity(recipe):
    labels = torch.full((5, 5, 5), float(recipe.BACKGROUND))
    labels[:, :, 3:] = recipe.UNKNOWN
    target, known = recipe.affinities(labels, (1,))
    assert target.sum() == 0
    assert known[0, :, :, 3:].sum() == 0
    assert known[0, :, :, 1:3].all()


@pytest.mark.parametrize("shape", [(24, 24, 24), (1, 24, 24)])
@pytest.mark.parametrize("cut", ["cut_patch", "warp_patch"])
def test_augmented_patches_keep_image_and_labels_together(recipe, cut, shape):
    labels = torch.full((40, 40, 40), 2.0)
    labels[:, 20:] = 3
    labels[:, :, 22:] = 4
    rng = torch.Generator().manual_seed(0)
    seen = []
    for _ in range(8):
        image, truth = getattr(recipe, cut)(labels / 10, labels, shape, rng)
        assert image.shape == truth.shape == shape
        known = truth != recipe.UNKNOWN
        around = torch.stack((truth[None], -truth[None]))
        most, least = torch.nn.functional.max_pool3d(around, 3, stride=1, padding=1)[:, 0]
        inner = (most == -least) & (truth > recipe.BACKGROUND) & known
        assert ((image[inner] * 10 - truth[inner]).abs() < 0.35).float().mean() > 0.995
        seen.append(float(inner.float().mean()))
    assert min(seen) > 0.2


@pytest.mark.parametrize("cut", ["cut_patch", "warp_patch"])
def test_squares_are_of_one_section(recipe, cut):
    sections = torch.arange(2.0, 7)[:, None, None].expand(5, 32, 32)
    rng = torch.Generator().manual_seed(0)
    cuts = [getattr(recipe, cut)(sections, sections, (1, 24, 24), rng) for _ in range(30)]
    for image, truth in cuts:
        assert image.round(decimals=3).unique().tolist() == truth[truth != recipe.UNKNOWN].unique().tolist()
    assert {round(float(image.mean()), 3) for image, _ in cuts} == {2, 3, 4, 5, 6}


def test_a_network_of_sections_learns_from_membranes(recipe, tmp_path):
    membranes = np.full((6, 64, 96), 255, np.uint8)
    membranes[:, 30:34] = membranes[:, :, 20:24] = membranes[:, :, 60:64] = 0
    noise = np.random.default_rng(0).integers(-20, 21, membranes.shape)
    tifffile.imwrite(tmp_path / "isbi2012_membranes.tif", membranes)
    tifffile.imwrite(tmp_path / "isbi2012_image.tif", (np.where(membranes, 150, 40) + noise).astype(np.uint8))
    words = [
        "--dataset",
        "isbi2012",
        "--sections",
        "5",
        "--patch",
        "32",
        "--batch",
        "2",
        "--steps",
        "90",
        "--rate",
        "0.01",
    ]
    given = recipe.parse([*words, "--data", str(tmp_path), "--output", str(tmp_path / "net.safetensors")])
    losses = recipe.train(given)
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        header = file.metadata()
        assert header["model"] == "recipes/section_unet.py"
        assert header["half"] == "z < 5; validation x >= 86 of 96"
        assert "ISBI 2012" in header["data"]
        net = load("section_unet").InstantiatedModel
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    sections = torch.rand(2, 1, 3, 32, 48)
    with torch.no_grad():
        out, alone = net(sections), net(sections[1:, :, 2:])
    assert out.shape == (2, 3, 3, 32, 48)
    assert out[:, 2].abs().max() == 0
    torch.testing.assert_close(out[1:, :, 2:], alone)
