import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskflow.operators.segmentation.connected_components import scratch as module
from daskflow.operators.segmentation.connected_components.scratch import Numbering
from daskflow.volume.stage import Scope, Scopes, run_here


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(0, 60), st.sampled_from([2, 3, 16]), st.integers(0, 2**32 - 1))
def test_components_are_numbered_by_their_first_voxel_whatever_box_they_are_in(boxes, count, fan_in, seed):
    rng = np.random.default_rng(seed)
    firsts, owners = rng.choice(2**62, count, replace=False), rng.integers(0, boxes, count)
    expected = np.argsort(np.argsort(firsts)) + 1
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_FAN_IN", fan_in)
        numbering = Numbering(boxes, Scope("some", url=directory))
        mine = [np.flatnonzero(owners == box) for box in range(boxes)]
        mine = [one[np.argsort(firsts[one])] for one in mine]
        for box, one in enumerate(mine):
            numbering.write(box, firsts[one])
        run_here(numbering.stages(), Scopes(directory))

        for box, one in enumerate(mine):
            assert numbering.numbers(box, len(one)).tolist() == expected[one].tolist()
        assert numbering.total(len(mine[-1])) == count


def test_one_box_needs_no_stage():
    assert Numbering(1, Scope("some")).stages() == ()
