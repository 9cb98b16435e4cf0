import numpy as np
import pytest

import daskflow
from daskflow.demo import SHAPE, run

pytest.importorskip("torch", reason="the demo runs a network: pip install 'daskflow[torch]'")


@pytest.mark.slow
def test_demo_segments_the_phantom_and_says_what_it_does(tmp_path, capsys):
    lines = []
    scores = run(str(tmp_path), options={"workers": 1}, view=False, say=lines.append)
    assert scores["adjusted_rand_index"] > 0.9
    assert scores["vi_split"] + scores["vi_merge"] < 0.3
    text = "\n".join([*lines, capsys.readouterr().err])
    assert text.count("save-interior: finished") == 1
    for words in ("synthetic", "Plan of save-interior", "20 of 20 blocks done", "components", "adjusted rand index"):
        assert words in text
    for name in ("image", "interior", "segmentation", "truth"):
        assert daskflow.open(tmp_path / name).box.shape == SHAPE
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    segmentation = daskflow.open(tmp_path / "segmentation").read()
    assert len(np.unique(segmentation)) > 50
    assert run(str(tmp_path), options={"workers": 1}, view=False, say=lines.append) == scores
