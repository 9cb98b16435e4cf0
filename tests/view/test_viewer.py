"""The viewer: which way each volume is shown, one port on this machine, clear refusals, a clean stop."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.request
from dataclasses import dataclass, replace

import numpy as np
import psutil
import pytest

from daskflow.errors import MissingChunkError, MissingDependencyError, ParameterError
from daskflow.geometry import BlockGrid, BoundingBox, VolumeSpec
from daskflow.stores.base import Layout
from daskflow.stores.memory import ArrayStore
from daskflow.stores.objects.files import write_file
from daskflow.stores.objects.mesh_files import legacy_info
from daskflow.stores.opening import create_store, open_store
from daskflow.stores.precomputed import PrecomputedStore
from daskflow.view import neuroglancer
from daskflow.volume import Stage, Task, Volume


def small(**spec):
    return Volume.from_array(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), **spec)


def source(viewer, place=0):
    shown = viewer.state["layers"][place]["source"]
    return shown if isinstance(shown, str) else shown["url"]


def cloud(url):
    """A precomputed volume at a URL that nobody asks."""
    scale = {
        "key": "4_4_40", "size": [64, 64, 64], "resolution": [4, 4, 40], "voxel_offset": [0, 0, 0],
        "chunk_sizes": [[64, 64, 64]], "encoding": "raw",
    }  # fmt: skip
    info = {"data_type": "uint8", "num_channels": 1, "type": "image", "scales": [scale]}
    return Volume.from_store(PrecomputedStore.from_info(url, info))


def listening(port):
    return [
        c.laddr.ip
        for c in psutil.Process().net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == port
    ]


def port_of(url):
    return int(url.split("/")[2].split(":")[1])


def test_page_and_layers_come_from_one_port_of_this_machine_alone():
    with neuroglancer({"a": small(), "b": small()}) as viewer:
        port = port_of(viewer.url)
        assert listening(port) == ["127.0.0.1"]
        assert f"//127.0.0.1:{port}/" in source(viewer)
        with urllib.request.urlopen(viewer.url) as page:
            assert b"<script" in page.read()


def test_single_volume_needs_no_name():
    with neuroglancer(small()) as viewer:
        assert [layer["name"] for layer in viewer.state["layers"]] == ["volume"]


def test_stop_frees_the_port_and_may_be_repeated():
    viewer = neuroglancer(small())
    port = port_of(viewer.url)
    viewer.stop()
    viewer.stop()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_two_viewers_live_side_by_side():
    with neuroglancer(small()) as first, neuroglancer(small()) as second:
        first.stop()
        with urllib.request.urlopen(second.url) as page:
            assert page.status == 200


def test_wait_returns_when_the_viewer_is_stopped():
    viewer = neuroglancer(small())
    threading.Timer(0.2, viewer.stop).start()
    viewer.wait()


def test_wait_stops_the_viewer_on_ctrl_c(monkeypatch):
    viewer = neuroglancer(small())

    def pressed():
        raise KeyboardInterrupt

    monkeypatch.setattr(viewer._stopped, "wait", pressed)
    viewer.wait()
    assert not listening(port_of(viewer.url))


def test_port_that_is_taken_is_refused_with_a_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ParameterError, match="port 0 takes a free one"):
            neuroglancer(small(), port=taken.getsockname()[1])


@pytest.mark.parametrize(("bind", "port"), [("127.0.0.1", 70000), ("192.0.2.1", 0), ("no such host", 0)])
def test_address_that_is_not_this_machine_is_refused(bind, port):
    with pytest.raises(ParameterError, match="cannot listen"):
        neuroglancer(small(), bind=bind, port=port)


def test_asked_port_is_taken():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with neuroglancer(small(), port=port) as viewer:
        assert port_of(viewer.url) == port


def test_listening_to_other_machines_is_said(caplog):
    with neuroglancer(small(), bind="0.0.0.0"):
        assert "other machines can connect" in caplog.text


def test_listening_to_this_machine_is_not_worth_a_word(caplog):
    with neuroglancer(small(), bind="localhost"):
        assert "other machines" not in caplog.text


def test_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuroglancer.server", None)
    with pytest.raises(MissingDependencyError, match=r"needs neuroglancer: pip install 'daskflow\[view\]'"):
        neuroglancer(small())


def test_failed_start_leaves_no_server_behind():
    before = threading.active_count()
    with pytest.raises(ParameterError, match="cast it"):
        neuroglancer({"image": small(), "labels": Volume.from_array(np.zeros((2, 2, 2)), layer_type="segmentation")})
    assert threading.active_count() == before


def test_meshes_that_are_in_no_layer_are_a_source_beside_the_labels(tmp_path):
    write_file(f"{tmp_path}/meshes", "info", json.dumps(legacy_info(mip=0)).encode())
    labels = Volume.from_array(np.ones((4, 4, 4), np.uint32), layer_type="segmentation")
    with neuroglancer({"image": small(), "labels": labels}, objects=[f"{tmp_path}/meshes"]) as viewer:
        image, segmentation = (layer["source"] for layer in viewer.state["layers"])
        assert isinstance(image, str)
        beside = segmentation[1] if isinstance(segmentation[1], str) else segmentation[1]["url"]
        with urllib.request.urlopen(f"{beside.removeprefix('precomputed://')}/info") as answer:
            assert json.loads(answer.read()) == legacy_info(mip=0)


@pytest.mark.parametrize("directory", ["nothing", "s3://private/meshes"])
def test_objects_that_are_none_or_out_of_reach_are_refused(tmp_path, monkeypatch, directory):
    monkeypatch.setattr("daskflow.view.state.load_object_info", lambda url: legacy_info(mip=0) if "s3" in url else {})
    with pytest.raises(ParameterError, match=r"meshes or skeletons|cannot reach"):
        neuroglancer(small(), objects=[directory if "s3" in directory else f"{tmp_path}/{directory}"], direct=False)


@pytest.mark.parametrize("wrong", [0, -1, 2**64])
def test_segments_that_are_no_labels_are_refused(wrong):
    with pytest.raises(ParameterError, match="segment"):
        neuroglancer(small(), segments=[5, wrong])


def test_no_layers_are_refused():
    with pytest.raises(ParameterError, match="at least one"):
        neuroglancer({})


def test_any_name_works_for_a_layer():
    name = "a net's output / 50 % <b>"
    with neuroglancer({name: small()}) as viewer:
        assert viewer.state["layers"][0]["name"] == name
        with urllib.request.urlopen(f"{source(viewer).removeprefix('precomputed://')}/info") as info:
            assert json.load(info)["data_type"] == "uint8"


def test_local_precomputed_layer_is_served_as_it_lies(tmp_path):
    spec = small(layer_type="image").spec
    create_store(tmp_path / "layer", spec, format="precomputed").write(spec.box, np.ones(spec.shape, np.uint8))
    volume = Volume.from_store(open_store(tmp_path / "layer"))
    with neuroglancer(volume) as viewer:
        base = source(viewer).removeprefix("precomputed://")
        with urllib.request.urlopen(f"{base}/info") as info:
            assert info.read() == (tmp_path / "layer" / "info").read_bytes()


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("encoding", "dtype", "as_it_lies"),
    [("compresso", "uint64", True), ("jxl", "uint8", True), ("crackle", "uint64", False), ("fpzip", "float32", False)],
)
def test_what_neuroglancer_cannot_decode_is_sent_raw_beside_its_meshes(
    tmp_path, encoding, dtype, as_it_lies, compression
):
    labels = encoding in ("compresso", "crackle")
    spec = VolumeSpec(BoundingBox((0, 0, 0), (4, 4, 4)), dtype, layer_type="segmentation" if labels else "image")
    layout = Layout(chunk=(4, 4, 4), encoding=encoding, quality=100 if encoding == "jxl" else None)
    layout = replace(layout, compression=compression)
    voxels = np.arange(64).reshape(4, 4, 4).astype(dtype)
    store = create_store(tmp_path / "layer", spec, format="precomputed", layout=layout)
    store.write(spec.box, voxels)
    stored = {**json.loads((tmp_path / "layer" / "info").read_text()), "mesh": "mesh"}
    (tmp_path / "layer" / "info").write_text(json.dumps(stored))
    (tmp_path / "layer" / "mesh").mkdir()
    (tmp_path / "layer" / "mesh" / "info").write_bytes(b"{}")
    with neuroglancer(Volume.from_store(open_store(tmp_path / "layer"))) as viewer:
        base = source(viewer).removeprefix("precomputed://")
        with urllib.request.urlopen(f"{base}/info") as answer:
            info = json.load(answer)
        scale = info["scales"][0]
        assert info["mesh"] == "mesh"
        assert scale["encoding"] == (encoding if as_it_lies else "raw")
        with urllib.request.urlopen(f"{base}/mesh/info") as answer:
            assert answer.read() == b"{}"
        with urllib.request.urlopen(f"{base}/{scale['key']}/0-4_0-4_0-4") as answer:
            assert (answer.read() == voxels.tobytes()) is not as_it_lies


def test_part_of_a_stored_layer_is_shown_as_that_part(tmp_path):
    spec = small(layer_type="image").spec
    create_store(tmp_path / "layer", spec, format="precomputed").write(spec.box, np.ones(spec.shape, np.uint8))
    part = Volume.from_store(open_store(tmp_path / "layer"))[1:3, 0:2, 0:4]
    with neuroglancer(part) as viewer:
        base = source(viewer).removeprefix("precomputed://")
        with urllib.request.urlopen(f"{base}/info") as info:
            assert json.load(info)["scales"][0]["size"] == [4, 2, 2]


@pytest.mark.parametrize("url", ["gs://bucket/layer", "s3://bucket/layer", "https://host.example/layer"])
def test_public_precomputed_layer_is_fetched_by_the_browser(url, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with neuroglancer(cloud(url)) as viewer:
        assert source(viewer) == f"precomputed://{url}"


def test_private_precomputed_layer_comes_through_this_process(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with neuroglancer(cloud("gs://bucket/layer"), direct=False) as viewer:
        assert "//127.0.0.1:" in source(viewer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with neuroglancer(cloud("s3://bucket/layer")) as viewer:
        assert "//127.0.0.1:" in source(viewer)


def test_faint_image_is_shown_by_its_contrast_and_bytes_by_their_whole_range():
    faint = np.linspace(1000, 1100, 8000).reshape(20, 20, 20).astype(np.uint16)
    with neuroglancer({"faint": Volume.from_array(faint), "bytes": small()}) as viewer:
        ranges = [layer["shaderControls"]["normalized"]["range"] for layer in viewer.state["layers"]]
    assert 1000 <= ranges[0][0] < ranges[0][1] <= 1100
    assert ranges[1] == [0, 255]


@pytest.mark.parametrize("error", [MissingChunkError, ZeroDivisionError])
def test_image_whose_middle_cannot_be_read_is_still_shown(error, caplog):
    def missing(box):
        raise error(f"{box} was never written")

    spec = small(layer_type="image").spec.replace(dtype=np.uint16)
    with neuroglancer(Volume.from_function(missing, spec)) as viewer:
        assert viewer.state["layers"][0]["shaderControls"]["normalized"]["range"] == [0, 65535]
    assert "was never written" in caplog.text


def test_stages_of_a_volume_run_once_before_it_is_shown():
    runs = []
    spec = small(layer_type="image").spec

    @dataclass(frozen=True)
    class Labelling(Task):
        def write(self, box, outputs):
            runs.append(box)

    stage = Stage("labelling", BlockGrid(spec.box, spec.box.shape), Labelling())

    def filled(task):
        return ArrayStore(np.full(spec.shape, 7, np.uint8), spec)

    waiting = Volume.waiting(spec, filled, stage.task, (stage,))
    with neuroglancer({"image": small(), "labels": waiting}) as viewer:
        base = source(viewer, 1).removeprefix("precomputed://")
        for _ in range(3):
            with urllib.request.urlopen(f"{base}/0/0-4_0-4_0-4") as chunk:
                assert set(chunk.read()) == {7}
        assert len(runs) == 1


def test_notebook_shows_the_page_in_a_frame():
    with neuroglancer(small()) as viewer:
        assert f'<iframe src="{viewer.url}"' in viewer._repr_html_()
        assert viewer.url in repr(viewer)


def test_link_opens_the_same_state_elsewhere():
    with neuroglancer(cloud("gs://bucket/layer")) as viewer:
        assert viewer.link("https://viewer.example").startswith("https://viewer.example/#!%7B")
