import numpy as np
import pytest

from daskflow.clusters import Threads
from daskflow.errors import ParameterError
from daskflow.operators.segmentation.evaluate_segmentation import evaluate_segmentation
from daskflow.stores.counting import count
from daskflow.volume import Volume
from daskflow.volume.description import Option

VOLUME = Volume.from_array(np.ones((4, 4, 4), np.uint8)).with_block(2)


def counted(block):
    count("odd_voxels", block.size)
    return block


class Unfit(Option):
    """An option that cannot be used."""

    def describe(self):
        return "unfit"

    def check(self):
        raise ParameterError("the model is unfit")


def unfit(block, option):
    pytest.fail(f"{option} was used on {block.shape}")


def test_what_is_counted_while_computing_reaches_the_report():
    job = evaluate_segmentation(VOLUME.map_blocks(counted, dtype=np.uint8), VOLUME)

    assert job.run(Threads(1), progress=False).counts["odd_voxels"] == 64


def test_options_that_refuse_are_met_before_any_block(tmp_path):
    volume = VOLUME.map_blocks(unfit, dtype=np.uint8, option=Unfit())
    job = evaluate_segmentation(volume, VOLUME, output=str(tmp_path / "scores.json"))

    with pytest.raises(ParameterError, match="unfit"):
        job.run(Threads(1), progress=False)
