"""Whole layers: tissue boxes as ``igneous image roi`` finds them, and what ``igneous image rm`` leaves."""

from __future__ import annotations

import numpy as np
from click.testing import CliRunner
from oracle import info, objects

import daskflow
from daskflow.cli.app import app


def test_tissue_boxes_are_the_same(igneous, threads, tmp_path):
    array = np.zeros((16, 1024, 1024), np.uint8)
    array[:, 100:900, 100:900] = 100
    ours, theirs = (igneous.layer(name, array, chunk=(16, 128, 128)) for name in ("ours", "theirs"))
    igneous("image", "roi", theirs)
    assert daskflow.roi(daskflow.open(ours)).run(threads, progress=False).ok
    assert info(ours)["scales"][0]["rois"] == info(theirs)["scales"][0]["rois"] == [[100, 100, 0, 899, 899, 15]]


def test_removed_levels_leave_info_and_provenance(igneous, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (64, 256, 256), np.uint8)
    ours, theirs = (igneous.layer(name, array) for name in ("ours", "theirs"))
    for layer in (ours, theirs):
        igneous("image", "downsample", layer, "--num-mips", 1)
    igneous("image", "rm", theirs, "--mip", 0, "--num-mips", 1)
    result = CliRunner().invoke(app, ["remove", str(ours), "--yes", "-m", "0,1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert objects(ours) - {"provenance"} == objects(theirs) - {"provenance"} == {"info"}
