import logging
import shutil
import warnings

import numpy as np
import pytest
import torch

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import ModelError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid
from daskflow.stores.counting import counting

PATCH = (4, 6, 6)
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1)
        torch.nn.init.constant_(self.conv.weight, 0.1)
        torch.nn.init.constant_(self.conv.bias, 0.5)

    def forward(self, x):
        {body}

InstantiatedModel = Net()
"""


@pytest.fixture
def declare(tmp_path):
    """Declare a torch network by the body of its forward function."""

    def declare(body="return self.conv(x)", extra="", **options):
        path = tmp_path / "net.py"
        path.write_text(NET.format(body=body) + extra)
        options = {"output_patch": PATCH, "channels": 2, "device": "cpu"} | options
        return Network("pytorch", PATCH, model=ModelFile.at(path), **options)

    return declare


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noise(batch=1, seed=0):
    return np.random.default_rng(seed).random((batch, 1, *PATCH), np.float32)


def run(network, array, overlap=(2, 3, 3), **options):
    grid = PatchGrid(BoundingBox((0, 0, 0), array.shape), network.input_patch, network.output_patch, overlap)
    return infer(array, box=grid.covered, read_box=grid.box, grid=grid, network=network, **options)


def test_outputs_are_those_of_the_network(declare):
    patches = noise(3)
    kernel = torch.full((2, 1, 3, 3, 3), 0.1)
    expected = torch.nn.functional.conv3d(torch.from_numpy(patches), kernel, torch.full((2,), 0.5), padding=1)
    torch.testing.assert_close(declare().engine()(patches), expected)


def test_no_gradient_is_recorded(declare):
    output = declare().engine()(noise())
    assert not output.requires_grad
    assert output.is_inference()


def test_outputs_of_the_input_size_are_cropped_and_outputs_of_the_output_size_are_not(declare):
    patches = noise(2)
    small = {"output_patch": (2, 4, 4)}
    cropped = declare(**small).engine()(patches)
    torch.testing.assert_close(cropped, declare().engine()(patches)[:, :, 1:3, 1:5, 1:5])
    valid = declare("return self.conv(x)[:, :, 1:3, 1:5, 1:5]", **small).engine()(patches)
    torch.testing.assert_close(valid, cropped)


def test_hooks_stand_around_the_network(declare):
    hooks = """
def pre_process(patch):
    assert patch.dtype == "float32" and patch.ndim == 5
    return {"image": torch.from_numpy(patch) * 2}

def post_process(net_output):
    return net_output["answer"]
"""
    network = declare("return {'answer': torch.cat([x['image']] * 2, 1)}", hooks)
    patches = noise()
    np.testing.assert_allclose(network.engine()(patches)[:, 1].numpy(), patches[:, 0] * 2)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("return self.conv(x)[:, :1]", r"shape \(1, 1, 4, 6, 6\).*expected \(1, 2, 4, 6, 6\).*num_output_channels"),
        ("return torch.cat([self.conv(x)] * 2, 1)", r"shape \(1, 4, 4, 6, 6\)"),
        ("return self.conv(x)[..., 1:]", r"shape \(1, 2, 4, 6, 5\).*output_patch_size"),
        ("return self.conv(x)[0]", r"shape \(2, 4, 6, 6\)"),
        ("return [self.conv(x)]", "answered list.*post_process"),
        ("return torch.cat([self.conv(x)] * 2, 4)", r"shape \(1, 2, 4, 6, 12\).*voxel for voxel.*resample"),
        ("return self.conv(x)[..., ::2, ::2]", r"shape \(1, 2, 4, 3, 3\).*voxel for voxel.*resample"),
        ("return self.conv(x).to(torch.complex64)", "complex numbers"),
        ("return self.conv(x) > 0", "--blend none"),
        ("return (self.conv(x), x)", r"choose by net_output .*'0' \(Tensor 1x2x4x6x6\), '1' \(Tensor 1x1x4x6x6\)"),
        ("return {'aff': self.conv(x), 'mask': x}", r"choose by net_output .*'aff' \(Tensor.*'mask'"),
        ("raise ValueError('odd patch')", r"failed on patches of shape \(1, 1, 4, 6, 6\).*odd patch"),
        ("return self.conv(x[0, 0])", "failed on patches"),
    ],
)
def test_answers_that_break_the_declaration_are_found_by_a_check(declare, body, match):
    network = declare(body)
    with pytest.raises(ModelError, match=match) as caught:
        network.check()
    assert "net.py" in str(caught.value)


@pytest.mark.parametrize(
    ("body", "choice"),
    [
        ("return x, self.conv(x)", "1"),
        ("return [self.conv(x)]", "0"),
        ("return {'mask': x, 'aff': self.conv(x)}", "aff"),
        ("return {0: x, 1: self.conv(x)}", "1"),
        ("return {'out': (x, self.conv(x))}", "out.1"),
        ("return self.conv(x), [x, {'deep': x}]", "0"),
        ("import dataclasses; return dataclasses.make_dataclass('Two', ['mask', 'aff'])(x, self.conv(x))", "aff"),
        ("from collections import namedtuple; return namedtuple('Two', 'mask aff')(x, self.conv(x))", "aff"),
    ],
)
def test_one_of_several_answers_is_chosen_by_index_or_name(declare, body, choice):
    patches = noise(2)
    torch.testing.assert_close(declare(body, net_output=choice).engine()(patches), declare().engine()(patches))


def test_a_choice_that_is_not_there_is_refused_with_those_that_are(declare):
    with pytest.raises(ModelError, match=r"none of them 'aff': choose by net_output .*'0'.*'1'"):
        declare("return x, self.conv(x)", net_output="aff").check()
    with pytest.raises(ModelError, match="answered one Tensor; leave net_output '1' out"):
        declare(net_output="1").check()


def test_the_batch_size_changes_neither_result_nor_leaves_stale_patches(declare):
    array = np.random.default_rng(0).integers(1, 255, (9, 13, 14), dtype=np.uint8)
    alone = run(declare(), array)
    for batch in (2, 5, 100):
        np.testing.assert_allclose(run(declare(batch_size=batch), array), alone, rtol=1e-5)


def test_networks_that_write_into_their_input_do_no_harm(declare):
    array = np.random.default_rng(0).integers(1, 255, (9, 13, 14), dtype=np.uint8)
    np.testing.assert_allclose(
        run(declare("return self.conv(x.mul_(0.5)) * 2"), array), run(declare("return self.conv(x * 0.5) * 2"), array)
    )


def test_kernels_are_laid_out_channels_last_where_the_network_takes_it(declare):
    engine = declare().engine()
    assert engine._model.net.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_networks_that_take_views_of_their_features_run(declare):
    patches = noise(2)
    viewing = "y = self.conv(x); return y.view(len(x), 2, -1).view(y.shape)"
    torch.testing.assert_close(declare(viewing).engine()(patches), declare().engine()(patches))


def test_lower_precision_is_used_inside_and_float32_outside(declare):
    network = declare("y = self.conv(x); assert y.dtype == torch.bfloat16; return y", dtype="bfloat16")
    output = network.engine()(noise())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, declare().engine()(noise()), rtol=0.02, atol=0.02)


def test_the_weights_of_half_precision_are_float32_and_what_overflows_within_a_network_is_told_so(declare):
    array = np.ones((4, 9, 9), np.float32)
    half = run(declare(dtype="float16"), array)
    np.testing.assert_allclose(half, run(declare(), array), rtol=2e-3)  # shares of 1e-6 are none of float16
    with pytest.raises(ModelError, match="65504, the greatest of float16: compute in dtype='bfloat16'"):
        run(declare("return self.conv(x * 1e6)", dtype="float16"), array)
    assert np.isfinite(run(declare("return self.conv(x * 1e6)", dtype="bfloat16"), array)).all()


def test_non_finite_answers_are_found_and_great_finite_ones_pass(declare):
    array = np.ones((4, 6, 9), np.float32)
    with pytest.raises(ModelError, match=r"net\.py answered NaN or infinity in 4 of 432 values"):
        run(declare("y = self.conv(x); y[:, :, 0, 0, 0] = float('nan'); return y"), array, overlap=(0, 0, 3))
    zeroed = run(declare("y = self.conv(x); y[:, :, 0, 0, 0] = float('inf'); return y"), array, (0, 0, 3), nan="zero")
    assert (zeroed == 0).sum() == 4
    assert run(declare("return self.conv(x) * 0 + 3e38"), array).min() > 2e38


def test_exported_programs_of_one_batch_size_run_at_any(tmp_path):
    net = torch.nn.Conv3d(1, 2, 3, padding=1).eval()
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, *PATCH),)), tmp_path / "m.pt2")
    network = Network("pytorch", PATCH, PATCH, 2, model=ModelFile.at(tmp_path / "m.pt2"), batch_size=3, device="cpu")
    for batch in (1, 2, 3):
        patches = noise(batch)
        with torch.inference_mode():
            torch.testing.assert_close(network.engine()(patches), net(torch.from_numpy(patches)))


class Pair(torch.nn.Module):
    """Answers an image and its mask, for export."""

    def forward(self, x):
        return x * 2, x * 3


class Named(torch.nn.Module):
    """Answers by name, for export."""

    def forward(self, x):
        return {"mask": x * 2, "image": x * 3}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["pt", "pt2"])
@pytest.mark.parametrize(
    ("net", "choice", "choices"), [(Pair(), "1", "'0'.*'1'"), (Named(), "image", "'mask'.*'image'")]
)
def test_archives_and_programs_of_several_answers_give_the_chosen_one(tmp_path, suffix, net, choice, choices):
    path = tmp_path / f"m.{suffix}"
    if suffix == "pt":
        torch.jit.save(torch.jit.script(net), path)
    else:
        torch.export.save(torch.export.export(net, (torch.rand(1, 1, *PATCH),)), path)
    options = {"model": ModelFile.at(path), "device": "cpu"}
    chosen = Network("pytorch", PATCH, PATCH, 1, net_output=choice, **options)
    torch.testing.assert_close(chosen.engine()(noise()), torch.from_numpy(noise() * 3))
    with pytest.raises(ModelError, match=f"choose by net_output .*{choices}"):
        Network("pytorch", PATCH, PATCH, 1, **options).check()


def test_a_device_that_is_not_there_is_refused(declare):
    with pytest.raises(ModelError, match="none that torch knows"):
        declare(device="abacus").engine()
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="finds no GPU"):
            declare(device="cuda").engine()


class TestOutOfMemory:
    body = "if len(x) > 2: raise torch.OutOfMemoryError('full')\n        return self.conv(x)"

    def test_halves_the_batch_and_stays_halved(self, declare, caplog):
        array = np.random.default_rng(0).integers(1, 255, (4, 6, 30), dtype=np.uint8)
        network = declare(self.body, batch_size=4)
        with caplog.at_level(logging.WARNING):
            result = run(network, array)
            again = run(network, array)
        np.testing.assert_array_equal(result, again)
        np.testing.assert_allclose(result, run(declare(), array), rtol=1e-5)
        assert [r.getMessage() for r in caplog.records if "halved to 2" in r.getMessage()] == [
            "cpu ran out of memory; batches are halved to 2 patches"
        ]
        assert network.engine().batch_size == 2

    def test_halves_it_again_until_it_fits(self, declare):
        network = declare(self.body, batch_size=9)
        with counting() as counts:
            outputs = network.engine()(noise(9))
        torch.testing.assert_close(outputs, declare().engine()(noise(9)))
        assert counts == {f"batches_halved_to_{size}_patches": 1 for size in (5, 3, 2)}
        assert network.engine().batch_size == 2

    def test_is_told_in_the_report(self, declare, tmp_path):
        network = declare(self.body, batch_size=4)
        image = daskflow.open(np.random.default_rng(0).integers(1, 255, (4, 6, 30), dtype=np.uint8))
        answer = daskflow.inference(
            image,
            input_patch_size=PATCH,
            output_patch_overlap=(2, 3, 3),
            num_output_channels=2,
            convnet_model=network.model.path,
            framework="pytorch",
            batch_size=4,
            device="cpu",
        )
        with Threads(1) as threads:
            report = daskflow.save(answer, str(tmp_path / "a.zarr")).run(threads, progress=False)
        assert report.counts == {"batches_halved_to_2_patches": 1}
        assert "1 batches halved to 2 patches" in str(report)

    def test_of_a_single_patch_fails(self, declare):
        network = declare("raise torch.OutOfMemoryError('full')")
        with pytest.raises(ModelError, match=r"a single patch.*smaller input_patch_size, or dtype='float16'"):
            network.check()


class TestCompiled:
    def test_batches_are_filled_up_and_the_result_is_that_of_the_network(self, declare, monkeypatch):
        shapes = []

        def compile_(net, *, dynamic):
            assert not dynamic
            return lambda x: shapes.append(tuple(x.shape)) or net(x)

        monkeypatch.setattr(torch, "compile", compile_)
        array = np.random.default_rng(0).integers(1, 255, (9, 13, 14), dtype=np.uint8)
        result = run(declare(batch_size=5, compile=True), array)
        np.testing.assert_allclose(result, run(declare(), array), rtol=1e-5)
        assert set(shapes) == {(5, 1, *PATCH)}

    def test_batches_that_are_too_large_are_halved(self, declare, monkeypatch):
        monkeypatch.setattr(torch, "compile", lambda net, dynamic: net)
        network = declare(TestOutOfMemory.body, batch_size=4, compile=True)
        torch.testing.assert_close(network.engine()(noise(3)), declare().engine()(noise(3)))
        assert network.engine().batch_size == 2

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, at itself
    @pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
    def test_a_real_compiler_keeps_the_result(self, declare):
        patches = noise(3)
        compiled = declare(batch_size=2, compile=True).engine()(patches)
        torch.testing.assert_close(compiled, declare().engine()(patches), rtol=1e-4, atol=1e-5)

    def test_what_cannot_be_compiled_is_refused_with_the_cause(self, declare, monkeypatch):
        def compile_(net, *, dynamic):
            def fail(x):
                raise RuntimeError("No working C++ compiler found")

            return fail

        monkeypatch.setattr(torch, "compile", compile_)
        with pytest.raises(ModelError, match=r"torch.compile fails on .*net.py: .*No working C\+\+ .*--compile"):
            declare(compile=True).check()
        with pytest.raises(ModelError, match=r"failed on patches .*odd patch"):
            declare("raise ValueError('odd patch')", compile=True).check()

    def test_torchscript_is_refused(self, tmp_path):
        path = tmp_path / "net.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.trace(torch.nn.Conv3d(1, 2, 3, padding=1), torch.zeros(1, 1, *PATCH)).save(str(path))
        model = ModelFile.at(path)
        with pytest.raises(ModelError, match=r"TorchScript, which .* does not take"):
            Network("pytorch", PATCH, PATCH, channels=2, model=model, device="cpu", compile=True).check()

    def test_other_frameworks_are_refused(self):
        with pytest.raises(ParameterError, match="compile is for framework 'pytorch', not 'identity'"):
            Network("identity", PATCH, PATCH, compile=True)

    def test_jobs_from_before_there_was_a_choice_go_on(self, declare):
        assert "compile" not in declare().describe()
        assert declare(compile=True).describe()["compile"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
class TestOnAGpu:
    def test_results_are_those_of_the_cpu(self, declare):
        array = np.random.default_rng(0).integers(1, 255, (20, 40, 41), dtype=np.uint8)
        for batch in (1, 3):
            result = run(declare(device="cuda", batch_size=batch), array)
            np.testing.assert_allclose(result, run(declare(), array), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("options", [{"augment": "channels"}, {"bump": "gaussian"}])
    def test_turned_patches_and_other_bumps_are_those_of_the_cpu(self, declare, options):
        array = np.random.default_rng(0).integers(1, 255, (20, 40, 41), dtype=np.uint8)
        result = run(declare(device="cuda", **options), array)
        np.testing.assert_allclose(result, run(declare(**options), array), rtol=1e-3, atol=1e-3)

    def test_a_repeated_block_gives_the_same_bytes(self, declare):
        array = np.random.default_rng(0).integers(1, 255, (20, 40, 41), dtype=np.uint8)
        network = declare(device="cuda", batch_size=2)
        np.testing.assert_array_equal(run(network, array), run(network, array))

    def test_half_precision_stays_near(self, declare):
        array = np.random.default_rng(0).integers(1, 255, (8, 12, 12), dtype=np.uint8)
        result = run(declare(device="cuda", dtype="float16"), array)
        np.testing.assert_allclose(result, run(declare(), array), rtol=0.02, atol=0.02)

    def test_auto_takes_it(self, declare):
        assert declare(device="auto").engine().device.type == "cuda"
