"""Networks that keep tensors of a pass on themselves, called by several threads."""

import threading

import numpy as np
import pytest
import torch
from distributed import Client

from daskflow.clusters import Threads, connect
from daskflow.geometry import BoundingBox
from daskflow.inference.blend import infer
from daskflow.inference.network import ModelFile, Network
from daskflow.inference.patches import PatchGrid
from daskflow.operators.inference.inference import inference
from daskflow.operators.stores.save import save
from daskflow.stores.opening import open_store
from daskflow.volume import Volume

SHAPE, PATCH = (4, 16, 32), (4, 8, 8)
SKIP = """
import time
import torch

class Net(torch.nn.Module):
    def forward(self, x):
        self.skip = x * 1
        time.sleep(0.001)  # lets other threads in
        return self.skip + 1

InstantiatedModel = Net()
"""
HOOK = """
import time
import torch

features = []
inner = torch.nn.Identity()
inner.register_forward_hook(lambda module, inputs, output: features.append(output))

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        features.clear()
        self.inner(x)
        time.sleep(0.001)
        return features[0] + 1

InstantiatedModel = Net()
"""
PROCESSING = """
import time
import torch

seen = {}

def pre_process(patch):
    seen["image"] = torch.from_numpy(patch)
    return seen["image"]

def post_process(answer):
    time.sleep(0.001)
    return seen["image"] + 1

InstantiatedModel = torch.nn.Identity()
"""
BUFFER = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.buffer = torch.zeros(1, 1, 4, 8, 8)

    def forward(self, x):
        self.buffer.copy_(x + 1)
        time.sleep(0.001)
        return self.buffer

InstantiatedModel = Net()
"""
INFERENCER = """
import time
import numpy as np

class PatchInferencer:
    def __init__(self, weight_path, output_patch_mask):
        self.buffer = np.zeros((1, 1, *output_patch_mask.shape), np.float32)

    def __call__(self, patches):
        self.patches = patches
        time.sleep(0.001)
        self.buffer[...] = self.patches + 1
        return self.buffer
"""
STATEFUL = {
    "skip": ("pytorch", SKIP),
    "hook": ("pytorch", HOOK),
    "processing": ("pytorch", PROCESSING),
    "buffer": ("pytorch", BUFFER),
    "inferencer": ("universal", INFERENCER),
}


def stateful(tmp_path, kind):
    if kind == "torchscript":
        path = tmp_path / "model.pt"
        torch.jit.save(torch.jit.script(Collecting()), path)
        return "pytorch", path
    framework, text = STATEFUL[kind]
    path = tmp_path / "model.py"
    path.write_text(text)
    return framework, path


class Collecting(torch.nn.Module):
    """Keeps a tensor of each pass, as an archive may."""

    def __init__(self):
        super().__init__()
        self.skip = torch.zeros(1)

    def forward(self, x):
        self.skip = x * 1
        for _ in range(300):
            x = torch.sin(x)
        return self.skip + 1


@pytest.fixture(scope="module")
def worker():
    """A Dask worker with four threads."""
    with Client(n_workers=1, threads_per_worker=4, processes=False, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", [*STATEFUL, "torchscript"])
@pytest.mark.parametrize("place", ["threads", "worker"])
def test_a_network_that_keeps_tensors_of_a_pass_answers_as_alone(tmp_path, worker, kind, place):
    framework, path = stateful(tmp_path, kind)
    array = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    volume = inference(
        Volume.from_array(array).with_block(PATCH),
        input_patch_size=PATCH,
        output_patch_overlap=(0, 0, 0),
        num_output_channels=1,
        convnet_model=str(path),
        framework=framework,
        device="cpu",
    )
    store = str(tmp_path / "out.zarr")
    client = worker if place == "worker" else Threads(4)
    assert save(volume, store, chunk=PATCH).run(client, progress=False).ok
    np.testing.assert_array_equal(Volume.from_store(open_store(store)).read()[0], array + 1)


def test_other_boxes_are_blended_while_a_pass_runs(tmp_path, monkeypatch):
    path = tmp_path / "model.py"
    path.write_text(
        "class PatchInferencer:\n"
        "    hold = None\n"
        "    def __init__(self, weight_path, output_patch_mask): pass\n"
        "    def __call__(self, patches):\n"
        "        if self.hold and patches[0, 0, 0, 0, 0] == 2: self.hold()\n"
        "        return patches\n"
    )
    network = Network("universal", PATCH, PATCH, channels=1, model=ModelFile.at(path))
    engine = network.engine()
    running, blending, blended = threading.Event(), threading.Event(), threading.Event()
    real = engine.accumulator

    class Slow:
        def __init__(self, *args):
            self.inner = real(*args)

        def add(self, *args):
            if threading.current_thread() is not second:
                blending.set()
                assert running.wait(20)
                blended.set()
            self.inner.add(*args)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    def hold():
        running.set()
        assert blended.wait(20)

    monkeypatch.setattr(engine, "accumulator", Slow)
    engine._inferencer.hold = hold
    box = BoundingBox((0, 0, 0), PATCH)
    grid = PatchGrid(box, PATCH, PATCH, (0, 0, 0))

    def answer(value):
        infer(np.full(PATCH, value, np.float32), box=box, read_box=box, grid=grid, network=network)

    def later():
        assert blending.wait(20)
        answer(2)

    second = threading.Thread(target=later)
    second.start()
    answer(1)
    second.join()
    assert blended.is_set()


def test_torch_uses_the_cores_of_a_worker_whose_threads_take_turns(tmp_path, worker):
    path = tmp_path / "model.py"
    path.write_text("import torch\nInstantiatedModel = torch.nn.Identity()\n")
    network = Network("pytorch", PATCH, PATCH, channels=1, model=ModelFile.at(path), device="cpu")
    before = torch.get_num_threads()

    def threads():
        torch.set_num_threads(1)
        network.engine()(np.ones((1, 1, *PATCH), np.float32))
        return torch.get_num_threads()

    try:
        assert worker.submit(threads, pure=False).result() == 4
    finally:
        torch.set_num_threads(before)


def test_torch_uses_the_threads_of_a_worker_process_in_a_model_with_neighbours(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("from helper import Width\nInstantiatedModel = Width()\n")
    (tmp_path / "helper.py").write_text(
        "import os, torch\n"
        "class Width(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.full_like(x, 10 * torch.get_num_threads() + int(os.environ['OMP_NUM_THREADS']))\n"
    )
    volume = inference(
        Volume.from_array(np.ones(SHAPE, np.float32)).with_block(PATCH),
        input_patch_size=PATCH,
        output_patch_overlap=(0, 0, 0),
        num_output_channels=1,
        convnet_model=str(path),
        framework="pytorch",
        device="cpu",
    )
    store = str(tmp_path / "out.zarr")
    with connect("local", workers=1, threads=3, memory="4GB") as client:
        assert save(volume, store, chunk=PATCH).run(client, progress=False).ok
    np.testing.assert_allclose(Volume.from_store(open_store(store)).read(), 31, rtol=1e-6)
