import dataclasses
import json

from blockfiles import job

import daskflow
from daskflow.jobs import provenance


def test_provenance_says_who_when_with_what_and_how(tmp_path, threads):
    files, task = job(tmp_path)
    command = ("daskflow", "load", "s3://key:secret@bucket/x", "https://host/y?signature=secret", "z?.tif")
    report = dataclasses.replace(files, command=command).run(threads, progress=False)
    made = provenance(report)
    assert made["version"] == daskflow.__version__
    assert made["packages"]["numpy"]
    assert made["parameters"]["files"]["task"] == task.describe()
    assert made["counts"] == {"missing_chunks": 8}
    assert made["blocks"] == {"files": {"done": 8, "empty": 0}}
    assert made["finished"].endswith("+00:00")
    assert made["command"][:2] == ["daskflow", "load"]
    assert made["command"][-1] == "z?.tif"
    assert "secret" not in json.dumps(made)
