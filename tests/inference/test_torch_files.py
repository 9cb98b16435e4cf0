import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from daskflow.errors import ModelError
from daskflow.inference.network import ModelFile
from daskflow.inference.pytorch import load_model
from daskflow.inference.state_dicts import read_weights

CPU = torch.device("cpu")
MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1)
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, x):
        return self.drop(self.conv(x))

InstantiatedModel = Net()
"""


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ModelFile.at(path)

    return write


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.rand(2, 1, 3, 3, 3, generator=generator),
        "conv.bias": torch.rand(2, generator=generator),
    }


@pytest.fixture
def expected(state):
    def run(x):
        return torch.nn.functional.conv3d(x, state["conv.weight"], state["conv.bias"], padding=1)

    return run


def saved(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def answer(model, x):
    with torch.inference_mode():
        return model.net(x)


X = torch.linspace(0, 1, 2 * 4 * 5 * 6).reshape(2, 1, 4, 5, 6)


class TestPythonModels:
    def test_instantiated_model_takes_a_state_dict_and_is_in_eval_mode(self, write, state, expected):
        model = load_model(write("m.py", MODEL), write("w.pt", saved(state)), CPU)
        torch.testing.assert_close(answer(model, X), expected(X))

    def test_a_checkpoints_state_dict_is_taken(self, write, state, expected):
        checkpoint = saved({"epoch": 3, "state_dict": state})
        model = load_model(write("m.py", MODEL), write("w.chkpt", checkpoint), CPU)
        torch.testing.assert_close(answer(model, X), expected(X))

    def test_safetensors_are_taken(self, write, state, expected):
        model = load_model(write("m.py", MODEL), write("w.safetensors", save(state)), CPU)
        torch.testing.assert_close(answer(model, X), expected(X))

    def test_load_model_goes_before_instantiated_model_and_gets_the_weight_path(self, write, state, expected):
        loader = """
def load_model(weight_path):
    net = Net()
    net.load_state_dict(torch.load(weight_path, weights_only=True))
    return net
"""
        model = load_model(write("m.py", MODEL + loader), write("w.pt", saved(state)), CPU)
        torch.testing.assert_close(answer(model, X), expected(X))

    def test_hooks_are_found(self, write):
        hooks = "\ndef pre_process(patch):\n    return 'in'\n\ndef post_process(net_output):\n    return 'out'\n"
        model = load_model(write("m.py", MODEL + hooks), None, CPU)
        assert (model.pre_process(None), model.post_process(None)) == ("in", "out")
        assert load_model(write("m.py", MODEL), None, CPU).pre_process is None

    def test_networks_with_2d_and_3d_convolutions_load(self, write):
        both = MODEL.replace("self.drop =", "self.flat = torch.nn.Conv2d(1, 1, 3)\n        self.drop =")
        assert load_model(write("m.py", both), None, CPU).net(X).shape == (2, 2, 4, 5, 6)

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("1 / 0", "does not run.*ZeroDivisionError"),
            ("x = 1", "neither load_model"),
            ("InstantiatedModel = 3", "neither load_model"),
            ("class PatchInferencer: ...", "framework='universal'"),
            ("def load_model(path):\n    raise RuntimeError('corrupt')", "load_model of .* failed.*corrupt"),
            ("def load_model(path):\n    return 3", "returned int"),
        ],
    )
    def test_files_that_break_the_protocol_are_named(self, write, text, match):
        with pytest.raises(ModelError, match=match) as caught:
            load_model(write("m.py", text), None, CPU)
        assert "m.py" in str(caught.value)

    def test_a_name_that_is_no_model_is_refused(self, write):
        with pytest.raises(ModelError, match=r"expected \.py, \.pt2, \.pt"):
            load_model(write("m.onnx", b"x"), None, CPU)


class TestWeights:
    def test_random_bytes_are_refused(self, write):
        for name in ("w.pt", "w.safetensors"):
            with pytest.raises(ModelError, match="do not load"):
                load_model(write("m.py", MODEL), write(name, np.random.default_rng(0).bytes(3000)), CPU)

    def test_a_truncated_file_is_refused(self, write, state):
        with pytest.raises(ModelError, match="do not load"):
            load_model(write("m.py", MODEL), write("w.pt", saved(state)[:500]), CPU)

    def test_pickled_code_is_not_run(self, write, state, tmp_path):
        marker = tmp_path / "run"
        with pytest.raises(ModelError, match="not run"):
            load_model(write("m.py", MODEL), write("w.pt", saved({**state, "x": Payload(marker)})), CPU)
        assert not marker.exists()

    def test_keys_that_do_not_fit_are_named_on_both_sides(self, write, state):
        state["convolution.bias"] = state.pop("conv.bias")
        with pytest.raises(ModelError, match=r"missing \['conv.bias'\], not in the model \['convolution.bias'\]"):
            load_model(write("m.py", MODEL), write("w.pt", saved(state)), CPU)

    def test_shapes_that_do_not_fit_are_named(self, write, state):
        state["conv.bias"] = torch.zeros(7)
        with pytest.raises(ModelError, match=r"size mismatch for conv\.bias"):
            load_model(write("m.py", MODEL), write("w.pt", saved(state)), CPU)

    def test_what_is_no_state_dict_is_refused(self, write):
        for value in (torch.zeros(3), {"a": 3}, [1, 2]):
            with pytest.raises(ModelError, match="hold no state dict"):
                read_weights(write("w.pt", saved(value)).verified())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
class TestTorchScript:
    def archive(self, state):
        net = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.Dropout(0.9))
        net[0].load_state_dict({name.removeprefix("conv."): value for name, value in state.items()})
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(net), buffer)
        return buffer.getvalue()

    def test_an_archive_is_loaded_in_eval_mode(self, write, state, expected):
        model = load_model(write("m.pt", self.archive(state)), None, CPU)
        torch.testing.assert_close(answer(model, X), expected(X))

    def test_random_bytes_and_bare_weights_are_refused_with_what_to_do(self, write, state):
        for content in (np.random.default_rng(0).bytes(3000), saved(state)):
            with pytest.raises(ModelError, match=r"is not a TorchScript archive.*convnet_weight_path"):
                load_model(write("m.pt", content), None, CPU)

    def test_a_whole_model_that_was_pickled_is_refused_with_how_to_save_it(self, write):
        with pytest.raises(ModelError, match=r"torch\.save wrote.*torch\.export\.save") as caught:
            load_model(write("m.pt", saved(torch.nn.Conv3d(1, 1, 1))), None, CPU)
        assert "corrupted" not in str(caught.value)

    def test_pickled_code_is_not_run(self, write, tmp_path):
        marker = tmp_path / "run"
        with pytest.raises(ModelError, match="not a TorchScript"):
            load_model(write("m.pt", saved(Payload(marker))), None, CPU)
        assert not marker.exists()

    def test_weights_beside_it_are_refused(self, write, state):
        with pytest.raises(ModelError, match="holds its own weights"):
            load_model(write("m.pt", self.archive(state)), write("w.pt", saved(state)), CPU)


class TestExportedPrograms:
    def archive(self, dynamic=False):
        net = torch.nn.Conv3d(1, 2, 3, padding=1).eval()
        with torch.no_grad():
            net.weight.fill_(0.5)
            net.bias.fill_(1)
        shapes = {"input": {0: torch.export.Dim("batch", min=1, max=64)}} if dynamic else None
        program = torch.export.export(net, (torch.rand(2, 1, 4, 5, 6),), dynamic_shapes=shapes)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        with torch.no_grad():
            return buffer.getvalue(), net(X)

    def test_a_program_answers_as_the_network_it_was_made_of(self, write):
        content, expected = self.archive()
        model = load_model(write("m.pt2", content), None, CPU)
        assert model.batch == 2
        torch.testing.assert_close(answer(model, X), expected)

    def test_a_program_of_any_batch_size_is_told_apart(self, write):
        assert load_model(write("m.pt2", self.archive(dynamic=True)[0]), None, CPU).batch is None

    def test_random_bytes_are_refused(self, write):
        with pytest.raises(ModelError, match="not an exported program"):
            load_model(write("m.pt2", np.random.default_rng(0).bytes(3000)), None, CPU)

    def test_a_zip_of_something_else_is_refused(self, write):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a/b.txt", "hello")
        with pytest.raises(ModelError, match="not an exported program"):
            load_model(write("m.pt2", buffer.getvalue()), None, CPU)

    @pytest.mark.parametrize("member", ["data/sample_inputs/model.pt", "data/weights/model.pt"])
    def test_pickled_code_is_not_run(self, write, tmp_path, member):
        marker = tmp_path / "run"
        content = self.tampered(lambda name, data: saved(Payload(marker)) if name.endswith(member) else data, member)
        with pytest.raises(ModelError, match=r"pickled objects in .*; they are not run"):
            load_model(write("m.pt2", content), None, CPU)
        assert not marker.exists()

    def test_pickled_weights_are_refused(self, write):
        def tamper(name, data):
            if not name.endswith("model_weights_config.json"):
                return data
            config = json.loads(data)
            config["config"]["bias"]["use_pickle"] = True
            return json.dumps(config).encode()

        with pytest.raises(ModelError, match=r"pickled objects \['bias'\]"):
            load_model(write("m.pt2", self.tampered(tamper)), None, CPU)

    def tampered(self, change, extra=None):
        source = zipfile.ZipFile(io.BytesIO(self.archive()[0]))
        buffer = io.BytesIO()
        names = source.namelist()
        root = names[0].partition("/")[0]
        with zipfile.ZipFile(buffer, "w") as archive:
            for name in dict.fromkeys([*names, *([f"{root}/{extra}"] if extra else [])]):
                archive.writestr(name, change(name, source.read(name) if name in names else b""))
        return buffer.getvalue()
