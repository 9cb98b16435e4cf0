import hashlib

import numpy as np
import pytest
from click.testing import CliRunner

from daskflow.cli.app import app
from daskflow.clusters import Threads
from daskflow.errors import DaskflowError, GeometryError, ModelError, ParameterError
from daskflow.geometry import BoundingBox
from daskflow.jobs import merge
from daskflow.operators.inference.inference import inference
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.operators.stores.save import save
from daskflow.volume import Volume


def image(shape, offset=(0, 0, 0), seed=0, **options):
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return array, Volume.from_array(array, voxel_offset=offset, **options)


def pass_through(volume, **options):
    options = {"input_patch_size": (4, 16, 16), "output_patch_overlap": (2, 8, 8), "framework": "identity"} | options
    return inference(volume, **options)


def test_identity_gives_the_scaled_image_at_its_place():
    array, volume = image((7, 29, 27), (10, 20, 30), voxel_size=(40, 8, 8))
    result = pass_through(volume, num_output_channels=1)
    assert result.box == volume.box
    assert result.shape == (1, 7, 29, 27)
    assert result.voxel_size == (40, 8, 8)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.read()[0], array / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "layer_type"), [(3, "affinity_map"), (1, "probability_map"), (4, "probability_map")]
)
def test_three_channels_make_an_affinity_map(channels, layer_type):
    result = pass_through(image((4, 16, 16))[1], num_output_channels=channels)
    assert (result.channels, result.layer_type) == (channels, layer_type)


@pytest.mark.parametrize("options", [{}, {"output_crop_margin": (1, 4, 4)}, {"output_crop_margin": (2, 8, 8)}])
def test_outputs_smaller_than_inputs_leave_out_what_no_patch_answers_for(options):
    array, volume = image((8, 32, 32), (5, 5, 5))
    result = pass_through(
        volume, input_patch_size=(6, 24, 24), output_patch_size=(4, 16, 16), num_output_channels=1, **options
    )
    z, y, x = options.get("output_crop_margin", (1, 4, 4))
    assert result.box == volume.box.shrink((z, y, x))
    np.testing.assert_allclose(result.read()[0], array[z:-z, y:-y, x:-x] / 255, atol=1e-6)


def test_a_crop_margin_leaves_out_the_shell_of_an_exact_result():
    array, volume = image((6, 24, 24), (1, 2, 3))
    result = pass_through(volume, output_crop_margin=(2, 8, 8))
    assert result.box == BoundingBox((3, 10, 11), (5, 18, 19))
    np.testing.assert_allclose(result.read(), np.stack([array[2:-2, 8:-8, 8:-8] / 255] * 3), atol=1e-6)


PRODUCTION = {"input_patch_size": (6, 24, 24), "output_patch_size": (4, 16, 16)}


@pytest.mark.parametrize(
    ("shape", "options", "left_out"),
    [
        ((6, 24, 24), {"mask_output_chunk": False}, (2, 8, 8)),  # chunkflow's shell
        ((6, 24, 24), {"patch_num": (2, 2, 2)}, (2, 8, 8)),
        ((6, 24, 24), {"patch_num": (2, 2, 2), "output_crop_margin": (1, 0, 3)}, (1, 0, 3)),
        ((6, 24, 24), {"patch_num": (2, 2, 2), "mask_output_chunk": True}, (0, 0, 0)),
        # what chunkflow's setup-env prints: a margin of 3 12 12 around tasks of 4 16 16, which tile the volume
        ((10, 40, 40), {**PRODUCTION, "patch_num": (3, 3, 3), "output_crop_margin": (2, 8, 8)}, (3, 12, 12)),
        ((10, 40, 40), {**PRODUCTION, "output_crop_margin": (2, 8, 8)}, (2, 8, 8)),
    ],
)
def test_with_chunkflows_number_of_patches_the_margin_is_cut_off_what_they_answer_for(shape, options, left_out):
    array, volume = image(shape, (5, 6, 7))
    result = pass_through(volume, num_output_channels=1, **options)
    assert result.box == volume.box.shrink(left_out)
    inner = tuple(slice(n, size - n) for n, size in zip(left_out, shape, strict=True))
    np.testing.assert_allclose(result.read()[0], array[inner] / 255, atol=1e-6)


@pytest.mark.parametrize("threshold", [0, 0.3])
@pytest.mark.parametrize("block", [(9, 40, 33), (4, 16, 13)])
def test_myelin_zeroes_the_other_three_channels(block, threshold):
    array, volume = image((9, 40, 33))
    array[:5] = 0
    result = pass_through(volume.with_block(block), num_output_channels=4, mask_myelin_threshold=threshold)
    assert (result.channels, result.layer_type, result.box) == (3, "affinity_map", volume.box)
    expected = np.where(array / 255 < threshold, array / 255, 0)
    np.testing.assert_allclose(result.data.compute(), np.stack([expected] * 3), atol=1e-6)


def test_a_dry_run_answers_with_the_image_and_needs_no_model():
    array = np.random.default_rng(0).random((2, 9, 40, 33), np.float32)
    result = pass_through(
        Volume.from_array(array), framework="pytorch", convnet_model="absent.py", augment=True, dry_run=True
    )
    np.testing.assert_allclose(result.read(), np.stack([array[0]] * 3), atol=1e-6)


def test_channels_that_may_be_affinities_are_told_to_be_averaged_alone(caplog):
    pass_through(image((4, 16, 16))[1], augment=True)
    assert "if they are affinities: augment_affinities" in caplog.text
    caplog.clear()
    pass_through(image((4, 16, 16))[1], augment=True, augment_affinities=True)
    assert not caplog.text


def test_a_volume_smaller_than_the_patch_works():
    array, volume = image((3, 10, 40))
    np.testing.assert_allclose(pass_through(volume).read()[2], array / 255, atol=1e-6)


@pytest.mark.parametrize("block", [(4, 16, 16), (3, 7, 11), (100, 100, 100)])
def test_blocks_of_any_size_compute_the_same(block):
    array, volume = image((9, 40, 33), (1, -7, 3))
    result = pass_through(volume.with_block(block))
    np.testing.assert_allclose(result.data.compute(), np.stack([array / 255] * 3), atol=1e-6)
    box = BoundingBox((2, 0, 10), (7, 20, 21))
    np.testing.assert_array_equal(result.read(box), result.read()[(slice(None), *box.slices(result.box))])


def test_nothing_is_loaded_before_a_voxel_is_asked_for(tmp_path):
    model = tmp_path / "model.py"
    model.write_text("raise RuntimeError('loaded')")
    result = pass_through(image((4, 16, 16))[1], framework="universal", convnet_model=str(model))
    with pytest.raises(ModelError, match="loaded"):
        result.read()


def test_the_description_holds_the_hashes_of_model_and_weights(tmp_path):
    for name in ("model.py", "weights.pt"):
        (tmp_path / name).write_text(name)
    options = {"convnet_model": str(tmp_path / "model.py"), "convnet_weight_path": str(tmp_path / "weights.pt")}
    described = str(pass_through(image((4, 16, 16))[1], framework="universal", **options).expression.describe())
    for name in ("model.py", "weights.pt"):
        assert hashlib.sha256(name.encode()).hexdigest() in described


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"output_patch_overlap": (4, 8, 8)}, ParameterError, r"overlap \(4, 8, 8\)"),
        ({"output_patch_size": (4, 16, 17)}, ParameterError, r"output patch \(4, 16, 17\)"),
        ({"output_patch_size": (2, 8, 8), "output_patch_overlap": (0, 0, 0), "output_crop_margin": (0, 4, 4)},
         ParameterError, r"output_crop_margin \(0, 4, 4\).*1-7_4-28_4-28"),
        ({"output_crop_margin": (4, 1, 1)}, ParameterError, "output_crop_margin"),
        ({"output_crop_margin": (5, 1, 1)}, GeometryError, "inverted"),
        ({"framework": "pytorch"}, ParameterError, "convnet_model"),
        ({"framework": "universal", "convnet_model": "absent.py"}, ModelError, "absent"),
        ({"batch_size": 0}, ParameterError, "batch_size"),
        ({"num_output_channels": 0}, ParameterError, "channels 0"),
        ({"num_input_channels": 2}, ParameterError, "num_input_channels 2 is said, and the volume has 1"),
        ({"mask_myelin_threshold": 0.3}, ParameterError, "answers 3: set num_output_channels to 4"),
        ({"patch_num": (3, 3, 2)}, ParameterError, r"3x3x2 patches \(zyx\) fill \(8, 32, 24\) voxels.*\(8, 32, 32\)"),
        ({"mask_output_chunk": False, "input_patch_size": (7, 16, 16)}, ParameterError, "2x3x3 patches"),
        ({"patch_num": (3, 3, 3), "output_crop_margin": (4, 0, 0)}, ParameterError, "leaves no voxel"),
        ({"bump": "wa"}, ParameterError, "bump 'wa' is none of wu, zung, gaussian"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_at_once(options, error, match):
    with pytest.raises(error, match=match):
        pass_through(image((8, 32, 32))[1], **options)


NAN_MODEL = """
class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        pass

    def __call__(self, patches):
        answer = patches.copy()
        answer[patches == 1] = float("nan")
        return answer
"""


class TestJobs:
    def saved(self, tmp_path, text, *, nan="error", channels=1):
        (tmp_path / "model.py").write_text(text)
        array = np.full((8, 32, 32), 100, np.uint8)
        array[1, 2, 3] = 255
        volume = pass_through(
            Volume.from_array(array).with_block((8, 16, 16)),
            framework="universal",
            convnet_model=str(tmp_path / "model.py"),
            output_patch_overlap=(0, 0, 0),
            num_output_channels=channels,
            nan=nan,
        )
        return save(volume, str(tmp_path / "out.zarr"), chunk=(8, 16, 16))

    def test_a_block_with_nan_fails_naming_the_model_and_the_others_finish(self, tmp_path):
        report = self.saved(tmp_path, NAN_MODEL).run(Threads(1), progress=False, retries=0)
        assert not report.ok
        assert (report.stages[0].done, report.stages[0].failed) == (3, 1)
        assert "model.py answered NaN or infinity in 1 of 2048 values of box 0-8_0-16_0-16" in str(report.failures)

    def test_zeroed_nans_are_counted_in_the_report(self, tmp_path):
        report = self.saved(tmp_path, NAN_MODEL, nan="zero").run(Threads(1), progress=False)
        assert report.ok
        assert report.counts["non_finite_voxels"] == 1

    @pytest.mark.parametrize(("text", "channels"), [("1 / 0", 1), (NAN_MODEL, 2)])
    def test_a_model_that_breaks_its_declaration_is_refused_before_anything_runs(self, tmp_path, text, channels):
        with pytest.raises(DaskflowError, match=r"model\.py"):
            self.saved(tmp_path, text, channels=channels).run(Threads(1), progress=False)
        assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("ending", [["save", "out.zarr"], ["threshold", "connected-components", "save", "out.zarr"]])
def test_a_network_that_breaks_its_declaration_is_refused_on_the_plan(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", image((8, 32, 32))[0])
    (tmp_path / "model.py").write_text(NAN_MODEL.replace("return answer", "return patches > 0"))
    line = ["inference", "-m", "model.py", "-s", "4", "16", "16", "-v", "2", "8", "8", "-c", "1", *ending]
    result = CliRunner().invoke(app, ["--plan", "open", "image.npy", *line], prog_name="daskflow")
    assert result.exit_code == 1
    assert "--blend none" in " ".join(result.output.split())
    assert not (tmp_path / "out.zarr").exists()


def test_estimate_grows_with_the_batch_and_the_box():
    volume = image((8, 32, 32))[1]

    def memory(box=volume.box, **options):
        return pass_through(volume, **options).expression.estimate([box]).memory

    half = BoundingBox((0, 0, 0), (4, 32, 32))
    result = 3 * 4 * volume.box.size
    assert memory() >= 2 * result
    assert memory(batch_size=11) - memory() == 10 * 4 * (4 * 16 * 16) * (1 + 3)
    assert memory() - memory(half) >= result


OLD = "inference -f general -m net.py --patch-size 4 16 16 --patch-overlap 2 8 8 -c 1 --no-mask-output-chunk"
NEW = "inference -f pytorch -m torch_net.py -s 4 16 16 -v 2 8 8 -c 1 --patch-num 3 5 5 --num-input-channels 1"


@pytest.mark.parametrize(("line", "factor"), [(OLD, 2), (f"{NEW} --batch-size 12 --bump zung --augment -d float16", 1)])
def test_lines_written_for_chunkflow_run(tmp_path, monkeypatch, line, factor):
    monkeypatch.chdir(tmp_path)
    array = image((8, 48, 48))[0]
    np.save("image.npy", array)
    (tmp_path / "net.py").write_text(
        "class PatchInferencer:\n"
        "    def __init__(self, weight_path, output_patch_mask): self.mask = output_patch_mask\n"
        "    def __call__(self, patches): return 2 * patches * self.mask\n"
    )
    (tmp_path / "torch_net.py").write_text(COUNTED)
    words = ["--cluster", "threads", *f"load-npy -f image.npy {line} save-npy -f answer.npy".split()]
    result = CliRunner().invoke(app, words, prog_name="daskflow")
    assert result.exit_code == 0, result.output
    np.testing.assert_allclose(np.load("answer.npy").squeeze(), array[2:-2, 8:-8, 8:-8] / 255 * factor, atol=1e-5)


COUNTED = """
import pathlib
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        with pathlib.Path("passes").open("a") as file:
            file.write("." * len(x))
        return x

InstantiatedModel = Net()
"""


@pytest.mark.parametrize(("block", "kept"), [("", False), ("-b 8 16 48", True), ("-b 4 48 16", True)])
def test_a_network_passes_once_for_all_that_a_line_makes_of_its_answer(tmp_path, monkeypatch, block, kept):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(COUNTED)
    np.save("image.npy", image((12, 48, 48))[0])
    network = "open image.npy inference --num-output-channels 1 -f pytorch -m net.py -s 4 16 16 -v 2 8 8 -o a"

    def passes(line):
        (tmp_path / "passes").unlink(missing_ok=True)
        result = CliRunner().invoke(app, f"--quiet --cluster threads {network} {line}".split())
        assert result.exit_code == 0, result.output
        return len((tmp_path / "passes").read_text())

    alone = passes("save a0 -i a -c 4 16 16")
    line = f"save a1 -i a -c 4 16 16 {block} connected-components -i a -t 0.5 -o s save s -i s voxel-counts -i s"
    line += " --output counts.csv"
    assert ("keep-in-scratch" in CliRunner().invoke(app, f"--plan {network} {line}".split()).output) == kept
    assert passes(line) in (alone - 1, alone)  # the first that loads the network tries it


@pytest.mark.parametrize(
    ("device", "framework", "asks"),
    [
        ("auto", "pytorch", True),
        ("cuda:1", "universal", True),
        ("cpu", "pytorch", False),
        ("auto", "identity", False),
    ],
)
def test_the_stage_that_runs_a_network_asks_for_a_gpu_unless_the_cpu_was_said(tmp_path, device, framework, asks):
    (tmp_path / "net.py").write_text(COUNTED)
    volume = image((12, 48, 48))[1]
    model = str(tmp_path / "net.py")
    answer = pass_through(volume, device=device, framework=framework, convnet_model=model, num_output_channels=1)
    jobs = [
        save(answer, str(tmp_path / "a.zarr"), chunk=(4, 16, 16), block=(4, 48, 16)),
        save(connected_components(answer, threshold=0.5), str(tmp_path / "b.zarr")),
    ]
    stages = merge(jobs).stages
    assert {stage.name for stage in stages if stage.task.gpu} == ({"keep-in-scratch"} if asks else set())
