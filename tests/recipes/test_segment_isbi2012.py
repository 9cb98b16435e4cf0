"""The recipe for sections, run small: profiles of one section each, from an image to scores."""

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import daskflow

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("segment_isbi2012")


def test_profiles_are_parted_by_membranes_and_sections(recipe):
    membranes = np.full((2, 3, 5), 255, np.uint8)
    membranes[0, :, 2] = membranes[1, 1, 1] = membranes[1, 0, 0] = 0
    np.testing.assert_array_equal(
        recipe.profiles(membranes),
        [[[1, 1, 0, 2, 2]] * 3, [[0, 3, 3, 3, 3], [3, 0, 3, 3, 3], [3, 3, 3, 3, 3]]],
    )


def test_sections_become_scored_profiles(recipe, tmp_path, monkeypatch, capsys):
    membranes = np.full((6, 64, 64), 255, np.uint8)
    membranes[:, 30:34] = membranes[:, :, 20:24] = membranes[3:, :, 44:48] = 0
    noise = np.random.default_rng(0).integers(-20, 21, membranes.shape)
    tifffile.imwrite(tmp_path / "isbi2012_membranes.tif", membranes)
    tifffile.imwrite(tmp_path / "isbi2012_image.tif", (np.where(membranes, 150, 40) + noise).astype(np.uint8))
    small = {"patch": (1, 64, 64), "overlap": (0, 16, 16), "chunk": (1, 32, 32), "block": (3, 64, 32)}
    monkeypatch.setattr(recipe, "SECTIONS", dataclasses.replace(recipe.SECTIONS, **small, turned=False))
    monkeypatch.setattr(recipe, "AFFINITIES", (0.5,))
    monkeypatch.setattr(recipe, "SEEN", (0, 3))
    monkeypatch.setattr(recipe, "HELD_OUT", (3, 6))
    words = ["--data", tmp_path, "--output", tmp_path / "out", "--cluster", "threads"]
    monkeypatch.setattr(sys, "argv", ["segment_isbi2012", *map(str, words)])
    recipe.main()
    assert daskflow.open(tmp_path / "out/held-out/affinities").compute()[2].max() == 0
    neurons = daskflow.open(tmp_path / "out/held-out/neurons").compute()
    assert not set(np.unique(neurons[0])) & set(np.unique(neurons[1])) - {0}
    told = capsys.readouterr().out
    errors = dict(re.findall(r"^(daskflow|components).* ([\d.]+) +[\d.]+$", told, re.MULTILINE))
    assert float(errors["daskflow"]) < 0.05
    assert float(errors["components"]) < 0.2
    assert (tmp_path / "out/segmentation.png").stat().st_size > 1000
    assert (tmp_path / "out/seen/sweep.svg").exists()
