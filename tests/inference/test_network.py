import json
import pickle
import sys
import threading

import numpy as np
import pytest

from daskflow.errors import ModelError, ParameterError
from daskflow.inference.network import ModelFile, Network

COUNTING = """

made = []

class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        made.append(weight_path)

    def __call__(self, patches):
        return patches
"""


def network(model, **options):
    options = {"framework": "universal", "input_patch": (2, 4, 4), "output_patch": (2, 4, 4), "channels": 1} | options
    return Network(model=model, **options)


def test_a_model_file_is_its_absolute_path_and_hash(model_file, monkeypatch):
    file = model_file("x = 1\n")
    assert len(file.sha256) == 64
    monkeypatch.setenv("HOME", file.path.rpartition("/")[0])
    assert ModelFile.at("~/model.py") == file
    assert file.verified().read_text() == "x = 1\n"


def test_a_missing_model_file_is_refused_by_its_path(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.py"):
        ModelFile.at(tmp_path / "absent.py")


def test_a_model_file_that_changed_after_planning_is_refused(model_file):
    file = model_file("x = 1\n")
    model_file("x = 2\n")
    with pytest.raises(ModelError, match="plan the job again"):
        file.verified()


def test_threads_of_a_process_load_a_network_once(model_file):
    declared = network(model_file(COUNTING))
    engines = []
    threads = [
        threading.Thread(target=lambda: engines.append(pickle.loads(pickle.dumps(declared)).engine())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engines) == 8
    assert len(set(map(id, engines))) == 1


def test_another_content_at_the_same_path_is_another_network(model_file):
    first = network(model_file(COUNTING))
    engine = first.engine()
    second = network(model_file(COUNTING + "\n# better\n"))
    assert second != first
    assert second.engine() is not engine


def test_only_the_last_few_networks_are_kept(model_file):
    declared = [network(model_file(COUNTING + f"\n# {i}\n", name=f"m{i}.py")) for i in range(6)]
    engines = [n.engine() for n in declared]
    assert declared[5].engine() is engines[5]
    assert declared[0].engine() is not engines[0]


def test_description_is_json_and_tells_files_apart_but_not_batches_or_devices(model_file):
    file, weights = model_file(COUNTING), model_file("w", name="weights.bin")
    described = network(file, weights=weights).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["model"] == {"path": file.path, "sha256": file.sha256}
    assert described["weights"]["sha256"] == weights.sha256
    assert network(file, weights=weights, batch_size=7, device="cpu").describe() == described
    assert network(file).describe() != described
    assert network(file, weights=weights, dtype="float16").describe() != described


def test_check_runs_one_patch_and_passes_a_good_network(model_file):
    text = COUNTING.replace("        return patches", "        made.append(patches.shape)\n        return patches")
    declared = network(model_file(text))
    declared.check()
    assert sys.modules[f"daskflow_model_{declared.model.sha256[:16]}"].made == [None, (1, 1, 2, 4, 4)]


def test_check_raises_what_a_wrong_declaration_would_do_to_a_block(model_file):
    with pytest.raises(ModelError, match=r"answered shape \(1, 1, 2, 4, 4\).*expected \(1, 3, 2, 4, 4\)"):
        network(model_file(COUNTING), channels=3).check()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"framework": "keras"}, "universal, identity, pytorch"),
        ({"dtype": "int8"}, "float32, float16, bfloat16"),
        ({"model": None}, "convnet_model"),
        ({"channels": 0}, "channels 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"input_channels": 0}, "input_channels 0"),
    ],
)
def test_declarations_that_make_no_sense_are_refused(model_file, options, match):
    with pytest.raises(ParameterError, match=match):
        network(**({"model": model_file(COUNTING)} | options))


def test_middle_is_the_output_patch_in_the_input_patch():
    declared = Network("identity", (6, 9, 8), (4, 4, 8))
    patch = np.zeros((6, 9, 8))
    assert patch[declared.middle].shape == (4, 4, 8)
    assert [s.start for s in declared.middle] == [1, 2, 0]
