"""State dicts as they lie in checkpoints."""

import argparse
import io
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from daskflow.errors import ModelError
from daskflow.inference.state_dicts import fill, read_weights


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 1)
        self.norm = torch.nn.BatchNorm3d(2)

    def forward(self, x):
        return self.norm(self.conv(x))


def values(seed=0):
    torch.manual_seed(seed)
    return {name: torch.rand(value.shape) for name, value in Net().state_dict().items() if value.ndim}


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def loads(checkpoint, net=None, name="w.pt", folder=None):
    """Return what a network holds once a saved checkpoint was loaded into it."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    path = folder / name
    path.write_bytes(buffer.getvalue())
    net = Net() if net is None else net
    fill(net, read_weights(path), "net.py", path)
    return net.state_dict()


def assert_holds(found, state):
    plain = {name.replace("_orig_mod.", "").replace("module.", "").replace("net.", ""): v for name, v in found.items()}
    for name, value in state.items():
        torch.testing.assert_close(plain[name], value)


places = st.lists(
    st.sampled_from(["model", "state_dict", "model_state_dict", "net", "ema", "model_ema", "params"]),
    max_size=3,
)
prefixes = st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "unet"]), max_size=3)


@settings(max_examples=40)
@given(places=places, prefix=prefixes, compiled=st.booleans(), parallel=st.booleans())
def test_any_nesting_and_prefix_is_found(tmp_path_factory, places, prefix, compiled, parallel):
    folder = tmp_path_factory.mktemp("w")
    checkpoint = OrderedDict(prefixed(values(), "".join(f"{part}." for part in prefix)))
    optimizer = {"state": {0: {"exp_avg": torch.rand(2), "step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    for place in places:
        checkpoint = {place: checkpoint, "optimizer": optimizer, "epoch": np.int64(3), "best": np.float32(0.5)}
    net = torch.nn.DataParallel(Net()) if parallel else Net()
    net = torch.compile(net, backend="eager") if compiled else net
    assert_holds(loads(checkpoint, net, folder=folder), values())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "model._orig_mod."])
def test_safetensors_are_found_by_prefix_too(tmp_path, prefix):
    save_file(prefixed(values(), prefix), tmp_path / "w.safetensors")
    net = Net()
    fill(net, read_weights(tmp_path / "w.safetensors"), "net.py", tmp_path / "w.safetensors")
    assert_holds(net.state_dict(), values())


def test_a_state_dict_in_a_list_is_found(tmp_path):
    assert_holds(loads({"epoch": 1, "folds": [{"module": values()}, None]}, folder=tmp_path), values())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_of_torchscript_given_as_weights_is_said_to_be_a_model(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Conv3d(1, 1, 1)), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt are a TorchScript archive.*convnet_model \(-m\)"):
        read_weights(tmp_path / "w.pt")


def test_wrapped_submodules_and_models_that_hold_the_network_are_matched(tmp_path):
    inner = {name.replace("conv.", "conv._orig_mod."): value for name, value in values().items()}
    assert_holds(loads(inner, folder=tmp_path), values())
    holder = torch.nn.Module()
    holder.net = Net()
    assert_holds(loads(values(), holder, folder=tmp_path), values())


def test_what_a_training_module_keeps_beside_the_network_is_left_out(tmp_path):
    lightning = {
        "state_dict": prefixed(values(), "net.") | {"loss.weight": torch.ones(3)},
        "hyper_parameters": {"args": argparse.Namespace(lr=0.1), "path": Path("data"), "mean": np.ones(3)},
        "callbacks": {}, "lr_schedulers": [{"last_epoch": np.int64(1)}], "pytorch-lightning_version": "2.5",
    }  # fmt: skip
    assert_holds(loads(lightning, folder=tmp_path), values())


def test_arrays_are_taken_for_tensors(tmp_path):
    assert_holds(loads({"params": {n: v.numpy() for n, v in values().items()}}, folder=tmp_path), values())


def test_two_that_fit_are_refused_unless_they_are_equal(tmp_path):
    assert_holds(loads({"model": values(), "teacher": values()}, folder=tmp_path), values())
    with pytest.raises(ModelError, match=r"several state dicts that fit .* under 'model', 'teacher': save the one"):
        loads({"model": values(), "teacher": values(1)}, folder=tmp_path)
    with pytest.raises(ModelError, match=r"several state dicts that fit .* under 'ema', 'swa'"):
        loads({"ema": values(), "swa": values(1)}, folder=tmp_path)


@pytest.mark.parametrize("average", ["ema", "model_ema", "ema_state_dict", "state_dict_ema", "swa-model", "EMA"])
@pytest.mark.parametrize("trained", ["model", "state_dict", "net", "zzz"])
def test_the_network_comes_before_its_running_average(tmp_path, caplog, trained, average):
    checkpoint = {average: prefixed(values(1), "module."), trained: prefixed(values(), "module.")}
    assert_holds(loads(checkpoint, folder=tmp_path), values())
    assert re.search(rf"'{trained}(\.module)?' is used, not the running average under '{average}", caplog.text)
    assert_holds(loads({average: values(1), "epoch": 3}, folder=tmp_path), values(1))


def test_a_running_average_beside_the_network_in_one_state_dict_comes_second(tmp_path):
    both = prefixed(values(), "model.") | prefixed(values(1), "model_ema.module.")
    assert_holds(loads({"state_dict": both}, folder=tmp_path), values())


def test_shapes_choose_between_two_of_the_same_names(tmp_path):
    other = {name: torch.cat([value, value]) for name, value in values().items()}
    assert_holds(loads({"big": other, "small": values()}, folder=tmp_path), values())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s: s | {"head.weight": torch.ones(2)}, r"missing \[\], not in the model \['head.weight'\]"),
        (lambda s: {n: v for n, v in s.items() if n != "conv.bias"}, r"missing \['conv.bias'"),
        (lambda s: s | {"conv.bias": torch.ones(7)}, r"size mismatch for conv\.bias: \(7,\), in the model \(2,\)"),
    ],
)
@pytest.mark.parametrize("place", [None, "model"])
def test_weights_that_do_not_fit_are_named(tmp_path, change, match, place):
    state = change(values())
    with pytest.raises(ModelError, match=match):
        loads(state if place is None else {place: state}, folder=tmp_path)


def test_weight_norm_of_older_torch_is_left_to_torch(tmp_path):
    net = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv3d(1, 2, 1))
    old = {"weight_g": torch.full((2, 1, 1, 1, 1), 2.0), "weight_v": torch.ones(2, 1, 1, 1, 1), "bias": torch.ones(2)}
    found = loads({"state_dict": old}, net, folder=tmp_path)
    assert (found["parametrizations.weight.original0"] == 2).all()


class Config:
    """What a lab's checkpoint may hold beside the weights."""


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["beside", "whole"])
def test_objects_that_are_not_run_are_named_with_how_to_save_anew(tmp_path, kind, legacy):
    path = tmp_path / "w.pt"
    saved = Net() if kind == "whole" else {"state_dict": values(), "config": Config()}
    torch.save(saved, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    text = str(caught.value)
    assert ("Net" if kind == "whole" else "Config") in text
    assert "not run" in text
    assert "torch.save(saved['state_dict'], 'weights.pt')" in text
    assert "\x1b" not in text
    assert "\n" not in text
