import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError
from daskflow.operators.image.contrast.levels import Levels


def image(shape, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def content(directory, z):
    return json.loads((directory / str(z)).read_text())


def test_levels_of_a_whole_section_add_up_to_its_voxels(tmp_path, threads):
    array = image((3, 256, 256))
    daskflow.open(array, voxel_offset=(5, 0, 0)).save(tmp_path / "layer").run(threads, progress=False)

    report = daskflow.contrast_levels(daskflow.open(tmp_path / "layer")).run(threads, progress=False)

    assert report.counts["sections"] == 3
    for z in (5, 6, 7):
        found = content(tmp_path / "layer" / "levels" / "0", z)
        assert found["levels"] == np.bincount(array[z - 5].ravel(), minlength=256).tolist()
        assert sum(found.pop("levels")) == 65536
        assert found == {"patch_size": [256, 256, 1], "num_patches": 1, "coverage_ratio": 1.0}


def test_levels_of_another_mip_are_kept_beside_those_of_the_first(tmp_path, threads):
    daskflow.open(image((2, 32, 32)), layer_type="image").save(tmp_path / "layer", levels=1, chunk=(2, 8, 8)).run(
        threads, progress=False
    )
    for mip in (0, 1):
        daskflow.contrast_levels(daskflow.open(tmp_path / "layer", mip=mip)).run(threads, progress=False)
    assert sum(content(tmp_path / "layer/levels/1", 0)["levels"]) == 256
    assert sum(content(tmp_path / "layer/levels/0", 0)["levels"]) == 1024


@pytest.mark.parametrize("block", [(2, 7, 5), (1, 40, 40), (3, 16, 16)])
def test_any_blocks_write_the_same_files(tmp_path, threads, block):
    volume = daskflow.open(image((3, 40, 40), "uint16"))
    daskflow.contrast_levels(volume, output=tmp_path / "whole").run(threads, progress=False)
    daskflow.contrast_levels(volume.with_block(block), output=tmp_path / "blocks").run(threads, progress=False)
    for z in range(3):
        assert (tmp_path / "blocks" / str(z)).read_bytes() == (tmp_path / "whole" / str(z)).read_bytes()


def test_levels_and_stretched_image_of_one_line_are_counted_once(tmp_path, threads):
    volume = daskflow.open(image((3, 40, 40)))
    levels = daskflow.contrast_levels(volume, output=tmp_path / "levels")
    job = daskflow.merge([levels, daskflow.contrast(volume).save(tmp_path / "new")])
    assert [stage.name for stage in job.stages] == ["count-levels", "store-levels", "find-limits", "save-new"]
    assert job.run(threads, progress=False).ok
    assert daskflow.open(tmp_path / "new").read().max() == 255


def test_files_that_were_deleted_are_made_again(tmp_path, threads):
    job = daskflow.contrast_levels(daskflow.open(image((3, 40, 40))), output=tmp_path / "levels")
    job.run(threads, progress=False)
    assert job.run(threads, progress=False).already_done
    (tmp_path / "levels" / "2").unlink()
    job.run(threads, progress=False)
    assert (tmp_path / "levels" / "2").exists()


def test_reading_levels_changes_nothing_for_readers_of_the_layer(tmp_path, threads):
    daskflow.open(image((3, 40, 40))).save(tmp_path / "layer").run(threads, progress=False)
    before = daskflow.open(tmp_path / "layer").expression.describe()
    daskflow.contrast_levels(daskflow.open(tmp_path / "layer")).run(threads, progress=False)
    assert daskflow.open(tmp_path / "layer").expression.describe() == before


def test_levels_are_drawn(tmp_path, threads):
    array = image((12, 30, 30))
    array[5] = 0
    volume = daskflow.open(array, voxel_offset=(-3, 0, 0))
    daskflow.contrast_levels(volume, output=tmp_path / "levels", plot=tmp_path / "levels.svg").run(
        threads, progress=False
    )
    picture = ET.fromstring((tmp_path / "levels.svg").read_text())
    shapes = [element.tag.rpartition("}")[2] for element in picture]
    assert shapes.count("polyline") == 2  # the black section is a gap
    assert shapes.count("polygon") == 6
    levels = Levels(str(tmp_path / "levels"))
    assert list(levels) == list(range(-3, 9))
    assert "12 sections, z -3 to 8" in levels._repr_html_()
    assert list(daskflow.read_levels(tmp_path / "levels")) == list(levels)
    tops = [float(height) for height in re.findall(r"V([\d.]+)h", levels[0]._repr_html_())]
    assert np.argmin(tops) == np.argmax(levels[0].counts)
    assert len(tops) == 256


def test_computed_volumes_need_a_directory(tmp_path):
    volume = daskflow.open(image((3, 4, 4)))
    with pytest.raises(ParameterError, match="name a directory"):
        daskflow.contrast_levels(volume)
    with pytest.raises(ParameterError, match="volume is a segmentation"):
        daskflow.contrast_levels(daskflow.threshold(volume, threshold=9), output=tmp_path)
