"""The lines of chunkflow's tutorials that fill a queue or work on one, as written: two at once, of which one dies."""

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import boto3
import numpy as np
import pytest
from chunkflow_lines import words, write_network
from click.testing import CliRunner

import daskflow
from daskflow.cli.app import app
from daskflow.operators.stores.create_info import CreateLevels
from daskflow.stores import Layout
from daskflow.stores.objects.layer_objects import read_mesh
from daskflow.stores.objects.mesh_files import Mesh, decode_fragment, weld

pytest.importorskip("torch")

QUEUE = "my-queue"  # as the tutorials call it


def line(words, *, code=0):
    result = CliRunner().invoke(app, words, prog_name="daskflow")
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(autouse=True)
def em(tmp_path, monkeypatch):
    """An image with four levels, masks, and levels of contrast."""
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
    return volume


def answers(channels):
    """Write a network, the layer of its answers, and that of their thumbnail."""
    write_network(channels, "net.py", "weights.pt", seconds=0.002)
    grey = daskflow.open("em").spec.replace(chunk=None, chunk_origin=None)
    meaning = "affinity_map" if channels == 3 else "probability_map"
    spec = grey.replace(dtype=np.dtype(np.float32), channels=channels, layer_type=meaning)
    for url, finest, mip, chunk in (("out", spec, 2, (8, 16, 16)), ("out/thumbnail", grey, 6, (8, 1, 1))):
        CreateLevels.of(url, finest, mip, Layout(chunk=chunk, encoding="raw"), (1, 2, 2)).check()


@pytest.fixture
def queue(s3):
    """Return how many tasks a queue holds, or, with `bodies`, which."""
    client = boto3.client("sqs")

    def look(name=QUEUE, *, bodies=False):
        url = client.get_queue_url(QueueName=name)["QueueUrl"]
        if bodies:
            found = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return [message["Body"] for message in found["Messages"]]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(map(int, found.values()))

    yield look
    for url in client.list_queues().get("QueueUrls", ()):
        client.delete_queue(QueueUrl=url)


def fill(*region):
    """Fill the queue with the boxes of a region."""
    line(["generate-tasks", *" ".join(map(str, region)).split(), "-q", QUEUE])


def test_the_lines_that_fill_a_queue(queue, em):
    line(words("generate-grid"))
    assert queue() == 8
    assert "0-128_0-1024_1024-2048" in queue(bodies=True)
    em.save("raw").run(progress=False)
    line(words("generate-volume", VOLUME_RAW="raw"))
    assert queue() == 8 + 2 * 3 * 3


def test_the_lines_that_set_a_run_up(queue):
    assert "--volume-start" in line(words("setup-env-as-is", SETUP_LAYER_AS_IS="lacks"), code=2)
    output = line(words("setup-env", SETUP_LAYER="run"))
    assert "--expand-margin-size 10 128 128" in output
    assert queue("my-sqs-queue-name") == 4 * 2 * 2
    assert daskflow.open("run", mip=1).block[1:] == (272, 272)


def test_the_line_that_sums_logs():
    Path("log").mkdir()
    Path("log/0-9.json").write_text(json.dumps({"timer": {"inference": 5.0}, "compute_device": "TITAN X"}))
    assert "TITAN X: 51.1 million voxels per second" in line(words("log-summary", TMP="."))


@pytest.mark.slow
def test_the_production_lines_on_two_workers_of_which_one_is_killed(queue):
    answers(4)
    fill("-c 8 32 32 -g 2 2 2")
    places = {"QUEUE_NAME": QUEUE, "VISIBILITY_TIMEOUT": 3, "LEVELS": "levels"}
    places |= {"CONVNET_MODEL_FILE": "net.py", "CONVNET_WEIGHT_FILE": "weights.pt"}
    layers = {"IMAGE": "em", "IMAGE_MASK": "image_mask", "OUTPUT_MASK": "output_mask", "OUTPUT": "out"}
    older, newer = (
        [sys.executable, "-m", "daskflow", *words(name, **places, **{f"{k}_{end}": v for k, v in layers.items()})]
        for name, end in (("002-production", "LAYER_PATH"), ("003-production", "volume_path"))
    )
    first = subprocess.Popen(older)
    try:
        while queue() == 8 and not list(Path("out").glob("*/8-*")):
            assert first.poll() is None
            time.sleep(0.1)
        second = subprocess.Popen(newer)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert second.wait(200) == 0
    assert queue() == 0

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


@pytest.mark.parametrize("name", ["002-complex", "003-complex"])
def test_the_complex_line(queue, name):
    answers(3)
    fill("-c 8 16 16 -g 2 2 2")
    line(words(name, VOLUME_EM="em", MODEL_PY="net.py", WEIGHTS="weights.pt", VOLUME_OUT="out"))
    assert queue() == 0
    grown = daskflow.load_precomputed(volume_path="em", mip=2, expand_margin_size=(2, 8, 8), fill_missing=True)
    answer = daskflow.inference(
        grown,
        input_patch_size=(4, 16, 16),
        output_patch_overlap=(2, 8, 8),
        convnet_model="net.py",
        convnet_weight_path="weights.pt",
        framework="pytorch",
    )
    level = daskflow.open("out", mip=2)
    np.testing.assert_allclose(level.read(), answer.read(level.box), atol=1e-6)


@pytest.mark.parametrize("name", ["002-downsample", "003-downsample"])
def test_the_line_that_makes_levels(queue, name):
    image = np.zeros((16, 64, 128), np.uint8)
    image[:, 30:50, 50:70] = np.random.default_rng(0).integers(1, 255, (16, 20, 20))
    volume = daskflow.open(image, voxel_size=(40, 4, 4))
    volume.save("pyramid", chunk=(1, 4, 4), delete_background=True).run(progress=False)
    fill("-l pyramid -c 16 64 64")
    line(words(name, VOLUME_PYRAMID="pyramid"))
    assert queue() == 0
    for mip in range(1, 5):
        level = daskflow.open("pyramid", mip=mip, fill_missing=True)
        right = daskflow.downsample_volume(volume, factor=(2**mip,) * 3, method="mean")
        np.testing.assert_array_equal(level.read(), right.read())


@pytest.mark.parametrize("name", ["002-mesh", "003-mesh"])
def test_the_mesh_line_writes_parts_that_fit_together(queue, name):
    labels = np.zeros((16, 64, 64), np.uint32)
    labels[3:13, 5:60, 7:50] = 7
    labels[:4, :4, :4] = 12
    labels[14:, 8:20, 8:20] = 70
    seg = daskflow.open(labels, voxel_size=(40, 8, 8), voxel_offset=(4, 0, 0), layer_type="segmentation")
    seg.save("seg", mip=3, chunk=(8, 32, 32)).run(progress=False)
    fill("-l seg -m 3 -c 8 32 32")
    line(words(name, VOLUME_SEG="seg"))
    assert queue() == 0
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
    line(["mesh-manifest", "--volume-path", "seg", "--prefix", "7", "--digits", "2"])
    assert (read_mesh("seg", 7).bounds, read_mesh("seg", 70)) == ((56, 40, 280, 400, 480, 680), None)
    line(words("mesh-manifest", VOLUME_FRAGMENTS="seg"))
    assert read_mesh("seg", 70).bounds == pytest.approx((64, 64, 720, 160, 160, 800), abs=3)
