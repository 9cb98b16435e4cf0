"""The lines of chunkflow's tutorials that work on a queue, on small data: two of them at once, of which one dies."""

import gzip
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import numpy as np
import pytest
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.operators.tasks.setup_env import Layers
from daskflow.stores.objects.layer_objects import read_mesh
from daskflow.stores.objects.mesh_files import Mesh, decode_fragment, weld

pytest.importorskip("torch")

NET = """
import time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        time.sleep(0.002)
        near = torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1) * self.scale
        return torch.cat([near / (n + 1) for n in range(4)], dim=1)

InstantiatedModel = Net()
"""

PRODUCTION = (
    "--mip 1 fetch-task -r 20 --queue-name={queue} --visibility-timeout=3 load-precomputed --volume-path=em"
    " --expand-margin-size 4 8 8 --fill-missing mask --name='check-all-zero-and-skip-to-save' --check-all-zero"
    " --volume-path=image_mask --mip 3 --skip-to='save-precomputed' --fill-missing --inverse"
    " normalize-section-contrast -p levels -l 0.0023 -u 0.01 inference --convnet-model=net.py"
    " --convnet-weight-path=weights.pt --input-patch-size 6 16 16 --output-patch-size 4 12 12"
    " --output-patch-overlap 2 4 4"
    " --output-crop-margin 3 6 6 --num-output-channels 4 --framework='pytorch' --batch-size 6 --patch-num 6 5 5"
    " mask --name='mask-aff' --volume-path=output_mask --mip 3 --fill-missing --inverse"
    " save-precomputed --volume-path=out --upload-log --nproc 0 --create-thumbnail cloud-watch delete-task-in-queue"
)


def line(words, *, code=0):
    result = CliRunner().invoke(app, shlex.split(words), prog_name="daskflow")
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(autouse=True)
def em(tmp_path, monkeypatch):
    """An image with four levels, masks, levels of contrast, a network, and layers for its answers."""
    import torch

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    image = random.integers(1, 255, (16, 128, 128)).astype(np.uint8)
    volume = daskflow.open(image, voxel_size=(40, 4, 4))
    volume.save("em", chunk=(8, 32, 32), levels=4).run(progress=False)
    for name, box in (("image_mask", (8, 0, 0)), ("output_mask", (0, 5, 5))):
        mask = np.zeros((16, 16, 16), np.uint8)
        mask[box[0] :, box[1] : box[1] + 6, box[2] :] = 1
        daskflow.open(mask, voxel_size=(40, 32, 32)).save(name, mip=3).run(progress=False)
    Path("levels").mkdir()
    for z in range(16):
        levels = random.integers(0, 99, 256).tolist()
        Path(f"levels/{z}").write_text(json.dumps({"levels": levels}))
    Path("net.py").write_text(NET)
    torch.save({"scale": torch.full((1,), 0.9)}, "weights.pt")
    grey = daskflow.open("em").spec.replace(chunk=None, chunk_origin=None)
    answers = grey.replace(dtype=np.dtype(np.float32), channels=4, layer_type="probability_map")
    Layers("out", answers, 1, (8, 16, 16), "raw").make(replace=False)
    Layers("out/thumbnail", grey, 6, (8, 1, 1), "raw").make(replace=False)
    return volume


@pytest.fixture
def queue(s3):
    """A queue with the boxes of all tasks."""
    client = boto3.client("sqs")
    name = f"tasks-{time.monotonic_ns()}"
    line(f"generate-tasks --chunk-size 8 32 32 --grid-size 2 2 2 --stride 8 32 32 --queue-name {name}")
    url = client.get_queue_url(QueueName=name)["QueueUrl"]

    def left():
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))

    assert left() == 8
    yield name, left
    client.delete_queue(QueueUrl=url)


@pytest.mark.slow
def test_the_production_line_on_two_workers_of_which_one_is_killed(queue):
    name, left = queue
    command = [sys.executable, "-m", "daskflow", *shlex.split(PRODUCTION.format(queue=name))]
    first = subprocess.Popen(command)
    try:
        while left() == 8 and not list(Path("out").glob("*/8-*")):
            assert first.poll() is None
            time.sleep(0.1)
        second = subprocess.Popen(command)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert second.wait(200) == 0
    assert left() == 0

    grown = daskflow.load_precomputed(volume_path="em", mip=1, expand_margin_size=(4, 8, 8), fill_missing=True)
    sizes = {"input_patch_size": (6, 16, 16), "output_patch_size": (4, 12, 12), "output_patch_overlap": (2, 4, 4)}
    contrast = daskflow.normalize_section_contrast(grown, levels_path="levels", lower_clip_fraction=0.0023)
    answer = daskflow.inference(
        contrast,
        **sizes,
        convnet_model="net.py",
        convnet_weight_path="weights.pt",
        num_output_channels=4,
        framework="pytorch",
        batch_size=6,
    )
    for mask in ("image_mask", "output_mask"):
        answer = daskflow.mask(answer, volume_path=mask, mip=3, inverse=True)
    level = daskflow.open("out", mip=1)
    np.testing.assert_allclose(level.read(), answer.read(level.box), atol=1e-6)
    assert level.read().any()
    assert len(list(Path("out/log").iterdir())) == 8
    assert daskflow.open("out/thumbnail", mip=6).read().shape == (16, 2, 2)


COMPLEX = (
    "--verbose --mip 1 fetch-task --queue-name={queue} --visibility-timeout=3600 cutout --volume-path=em"
    " --expand-margin-size 2 8 8 --fill-missing inference --convnet-model=net.py --convnet-weight-path=weights.pt"
    " --patch-size 4 16 16 --patch-overlap 2 8 8 --framework='pytorch' --batch-size=8 --num-output-channels 4"
    " save --volume-path=out --upload-log --nproc 0 --create-thumbnail cloud-watch delete-task-in-queue"
)


def test_the_complex_line(queue):
    name, left = queue
    line(COMPLEX.format(queue=name))
    assert left() == 0
    grown = daskflow.load_precomputed(volume_path="em", mip=1, expand_margin_size=(2, 8, 8), fill_missing=True)
    answer = daskflow.inference(
        grown,
        input_patch_size=(4, 16, 16),
        output_patch_overlap=(2, 8, 8),
        convnet_model="net.py",
        convnet_weight_path="weights.pt",
        num_output_channels=4,
        framework="pytorch",
    )
    level = daskflow.open("out", mip=1)
    np.testing.assert_allclose(level.read(), answer.read(level.box), atol=1e-6)


def test_the_line_that_makes_levels(s3, em):
    em.save("pyramid", chunk=(8, 16, 16)).run(progress=False)
    name = f"levels-{time.monotonic_ns()}"
    line(f"generate-tasks -l pyramid -m 0 -o 0 0 0 -c 16 64 64 -q {name}")
    line(
        f"--mip 0 fetch-task -q {name} -r 0 cutout -v pyramid -m 0 --fill-missing"
        " downsample-upload -v pyramid --start-mip 1 --stop-mip 2 delete-task-in-queue"
    )
    daskflow.downsample_upload(em, volume_path="pyramid", stop_mip=2)
    np.testing.assert_array_equal(
        daskflow.open("pyramid", mip=1).read(), daskflow.downsample_volume(em, factor=(2, 2, 2), method="mean").read()
    )


def test_the_mesh_line_writes_parts_that_fit_together(s3):
    labels = np.zeros((16, 64, 64), np.uint32)
    labels[3:13, 5:60, 7:50] = 7
    labels[:2, :2, :2] = 12
    labels[14:, 8:20, 8:20] = 70
    seg = daskflow.open(labels, voxel_size=(40, 8, 8), voxel_offset=(4, 0, 0), layer_type="segmentation")
    seg.save("seg", chunk=(8, 32, 32)).run(progress=False)
    name = f"mesh-{time.monotonic_ns()}"
    line(f"generate-tasks -l seg -m 0 -c 8 32 32 -q {name}")
    line(
        f"--mip 0 fetch-task -q {name} -v 600 -r 0 cutout -v seg --fill-missing mesh --voxel-size 40 8 8"
        " -o seg --dust-threshold 10 delete-task-in-queue"
    )
    info = json.loads(Path("seg/info").read_text())
    parts = sorted(Path("seg", info["mesh"]).glob("7:0:*"))
    assert len(parts) == 8
    assert parts[0].name == "7:0:0-32_0-32_12-20.gz"
    assert not list(Path("seg", info["mesh"]).glob("12:*"))
    whole = Mesh.joined([decode_fragment(gzip.decompress(part.read_bytes())) for part in parts])
    vertices, faces = weld(whole.vertices, whole.faces)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert vertices.min(0).tolist() == [7 * 8, 5 * 8, 7 * 40]
    assert vertices.max(0).tolist() == [50 * 8, 60 * 8, 17 * 40]
    line("mesh-manifest --volume-path seg --prefix 7 --digits 2")
    assert (read_mesh("seg", 7).bounds, read_mesh("seg", 70)) == ((56, 40, 280, 400, 480, 680), None)
    line("mesh-manifest --volume-path seg --prefix 7")
    assert read_mesh("seg", 70).bounds == pytest.approx((64, 64, 720, 160, 160, 800), abs=3)
