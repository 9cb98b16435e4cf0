import json

import numpy as np

import daskflow


def test_a_copy_is_noted_in_its_source_if_asked(tmp_path):
    daskflow.open(np.ones((8, 8, 8), np.uint8)).save(tmp_path / "source").run(progress=False)
    source = daskflow.open(tmp_path / "source")
    source.save(tmp_path / "quiet").run(progress=False)
    before = json.loads((tmp_path / "source/provenance").read_text())
    source.save(tmp_path / "copy", note_source=True).run(progress=False)
    after = json.loads((tmp_path / "source/provenance").read_text())
    assert len(after["processing"]) == len(before["processing"]) + 1
    assert "copy" in json.dumps(after["processing"][-1])
