import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from daskflow.errors import ModelError
from daskflow.geometry import BoundingBox
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid

PATCH = (4, 6, 6)
KERNEL = np.random.default_rng(1).random((2, 1, 3, 3, 3), np.float32)


@pytest.fixture
def declare(tmp_path):
    """Declare a network whose first answer convolves the image, and whose second repeats a mask twice."""

    def declare(batch="batch", dtype=TensorProto.FLOAT, padded=True, **options):
        shape = (batch, 1, *PATCH)
        size = PATCH if padded else [n - 2 for n in PATCH]
        inputs = [helper.make_tensor_value_info(name, dtype, shape) for name in ("image", "mask")]
        outputs = [helper.make_tensor_value_info(name, dtype, (batch, 2, *size)) for name in ("convolved", "twice")]
        kernel = KERNEL.astype(helper.tensor_dtype_to_np_dtype(dtype))
        nodes = [
            helper.make_node("Conv", ["image", "kernel"], ["convolved"], pads=6 * [int(padded)]),
            helper.make_node("Concat", ["mask", "mask"], ["twice"], axis=1),
        ]
        parts = slice(0, 2) if options.get("inputs") else slice(0, 1)
        weights = [numpy_helper.from_array(kernel, "kernel")]
        graph = helper.make_graph(nodes[parts], "net", inputs[parts], outputs[parts], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / "net.onnx")
        options = {"output_patch": PATCH, "channels": 2, "device": "cpu"} | options
        return Network("onnx", PATCH, model=ModelFile.at(tmp_path / "net.onnx"), **options)

    return declare


def noise(batch=3, channels=1):
    return np.random.default_rng(0).random((batch, channels, *PATCH), np.float32)


def convolved(patches):
    padded = np.pad(patches[:, 0], ((0, 0), (1, 1), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), axis=(1, 2, 3))
    return np.einsum("bzyxijk,cijk->bczyx", windows, KERNEL[:, 0])


@pytest.mark.parametrize("batch", ["batch", 2, 4])
def test_batches_of_any_size_run_also_where_the_file_takes_one(declare, batch):
    found = declare(batch).engine()(noise())
    np.testing.assert_allclose(found, convolved(noise()), rtol=1e-5)


def test_answers_for_the_middle_and_of_half_precision_are_taken(declare):
    network = declare(padded=False, output_patch=(2, 4, 4))
    np.testing.assert_allclose(network.engine()(noise()), convolved(noise())[..., 1:-1, 1:-1, 1:-1], rtol=1e-5)
    found = declare(dtype=TensorProto.FLOAT16).engine()(noise())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, convolved(noise()), rtol=1e-2)


def test_several_inputs_and_answers_have_channels_of_their_own(declare):
    options = {"inputs": (1, 1), "input_channels": 2, "net_output": "twice,convolved", "outputs": (2, 2), "channels": 4}
    network = declare(**options)
    box = BoundingBox((0, 0, 0), PATCH)
    image, mask = noise()[0, 0], np.full(PATCH, 51, np.uint8)
    found = infer(image, mask, box=box, read_box=box, grid=PatchGrid(box, PATCH, PATCH, (0, 0, 0)), network=network)
    np.testing.assert_allclose(found[:2], 0.2, rtol=1e-6)
    np.testing.assert_allclose(found[2:], convolved(noise())[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"inputs": (1, 1), "input_channels": 2, "net_output": "none"}, "choose by net_output.*'convolved'.*'twice'"),
        ({"inputs": (1, 1, 1), "input_channels": 3}, "takes image tensor.*mask.*volumes are given, 3"),
        ({"channels": 3}, r"set num_output_channels to 2"),
        ({"dtype": TensorProto.INT32}, "does not load in onnxruntime"),
        ({"device": "cuda"}, "onnxruntime-gpu"),
        ({"device": "mps"}, "'mps' is none that onnxruntime knows"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(declare, options, match):
    with pytest.raises(ModelError, match=match):
        declare(**options).check()


def test_a_file_without_its_weights_or_of_another_kind_is_refused(tmp_path, declare):
    network = declare()
    (tmp_path / "net.onnx").write_bytes(b"no onnx")
    with pytest.raises(ModelError, match="as planned"):
        network.engine()
    other = Network("onnx", PATCH, PATCH, model=ModelFile.at(tmp_path / "net.onnx"))
    with pytest.raises(ModelError, match=r"does not load in onnxruntime \(.*\); expected an ONNX file"):
        other.engine()


def test_a_gpu_is_taken_where_onnxruntime_has_one(declare, monkeypatch):
    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, content, options, providers):
            asked.append(providers)
            super().__init__(content, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    for device in ("auto", "cuda:1", "cpu"):
        declare(device=device).engine()
    gpus = [[provider[1]["device_id"] for provider in providers[:-1]] for providers in asked]
    assert gpus == [[0], [1], []]
