"""The routes: files, ranges and headers as browsers want them; nothing outside the layers, nor without the secret."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import urllib.parse

import brotli
import numpy as np
import pytest

from daskflow.errors import MissingChunkError
from daskflow.stores.opening import create_store, open_store
from daskflow.view import neuroglancer
from daskflow.view.server import ComputedHandler
from daskflow.volume import Volume


def ask(url, method="GET", **headers):
    """Return status, headers and body, without a client that tidies the path or decodes the body."""
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=20)
    connection.request(method, f"/{path}", headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def addresses(viewer):
    return {
        layer["name"]: layer["source"].removeprefix("precomputed://") if isinstance(layer["source"], str)
        else layer["source"]["url"].removeprefix("precomputed://")
        for layer in viewer.state["layers"]
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("layers")
    (base / "secret").write_bytes(b"private")
    spec = Volume.from_array(np.zeros((8, 8, 8), np.uint8), layer_type="image").spec
    store = create_store(base / "layer", spec, format="precomputed")
    store.write(spec.box, np.zeros(spec.shape, np.uint8))
    layer = base / "layer"
    (layer / "blob").write_bytes(bytes(range(100)))
    (layer / "zipped.gz").write_bytes(gzip.compress(b"in gzip"))
    (layer / "brotlied.br").write_bytes(brotli.compress(b"in brotli"))
    (layer / "way out").symlink_to(base / "secret")
    (layer / "inside").symlink_to(layer / "blob")
    return layer


@pytest.fixture(scope="module")
def served(folder):
    with neuroglancer({"layer": Volume.from_store(open_store(folder))}) as viewer:
        yield addresses(viewer)["layer"]


def test_file_is_sent_whole_to_any_origin(served):
    status, headers, body = ask(f"{served}/blob", Origin="https://viewer.example")
    assert (status, body) == (200, bytes(range(100)))
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("asked", "sent"), [("bytes=10-19", range(10, 20)), ("bytes=90-", range(90, 100)), ("bytes=-7", range(93, 100)),
                        ("bytes=95-200", range(95, 100))],
)  # fmt: skip
def test_byte_ranges(served, asked, sent):
    status, headers, body = ask(f"{served}/blob", Range=asked)
    assert (status, body) == (206, bytes(sent))
    assert headers["Content-Range"] == f"bytes {sent.start}-{sent.stop - 1}/100"


def test_range_beyond_the_file_is_refused(served):
    assert ask(f"{served}/blob", Range="bytes=200-300")[0] == 416


def test_head_tells_the_size_alone(served):
    status, headers, body = ask(f"{served}/blob", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "100", b"")


def test_preflight_allows_ranges(served):
    status, headers, _ = ask(f"{served}/blob", "OPTIONS")
    assert status == 204
    assert "range" in headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(
    ("name", "encoding", "decode", "text"),
    [("zipped", "gzip", gzip.decompress, b"in gzip"), ("brotlied", "br", brotli.decompress, b"in brotli")],
)
def test_compressed_chunk_is_sent_under_its_plain_name(served, name, encoding, decode, text):
    status, headers, body = ask(f"{served}/{name}", Range="bytes=0-1")
    assert (status, headers["Content-Encoding"]) == (200, encoding)
    assert decode(body) == text


@pytest.mark.parametrize("name", ["absent", "", "../secret", "..%2fsecret", "%2e%2e/secret", "way%20out",
                                  "/etc/passwd", "%2fetc%2fpasswd", "..%5csecret"])  # fmt: skip
def test_nothing_outside_the_folder_is_sent(served, name):
    status, _, body = ask(f"{served}/{name}")
    assert status in (403, 404)
    assert b"private" not in body


def test_link_within_the_folder_is_followed(served):
    assert ask(f"{served}/inside")[0] == 200


def test_written_again_is_sent_again(served, folder):
    (folder / "changing").write_bytes(b"old")
    _, headers, _ = ask(f"{served}/changing")
    (folder / "changing").write_bytes(b"new")
    assert ask(f"{served}/changing", If_Modified_Since=headers["Last-Modified"])[2] == b"new"


def test_nothing_is_sent_without_the_secret(served):
    parts = urllib.parse.urlsplit(served)
    _, layers, secret, name = parts.path.split("/")
    assert ask(f"http://{parts.netloc}/{layers}/{secret[::-1]}/{name}/info")[0] == 404
    assert ask(f"http://{parts.netloc}/{layers}/{name}/info")[0] == 404
    assert len(secret) >= 32


def test_computed_layer_answers_with_info_and_chunks():
    volume = Volume.from_array(np.arange(64, dtype=np.uint8).reshape(4, 4, 4), voxel_offset=(-2, 0, 5))
    with neuroglancer({"computed": volume}) as viewer:
        base = addresses(viewer)["computed"]
        status, headers, body = ask(f"{base}/info")
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, "*")
        assert json.loads(body)["scales"][0]["voxel_offset"] == [5, 0, -2]
        assert ask(f"{base}/0/5-9_0-4_-2-2")[2] == bytes(range(64))
        status, headers, body = ask(f"{base}/0/5-9_0-4_-2-2", Accept_Encoding="gzip")
        assert (headers["Content-Encoding"], gzip.decompress(body)) == ("gzip", bytes(range(64)))
        assert ask(f"{base}/0/5-9_0-4_-2-2", "HEAD")[::2] == (200, b"")
        assert ask(f"{base}/0/0-4_0-4_0-4")[0] == 404
        assert ask(f"{base}/secret")[0] == 404
        assert ask(f"{base}/info", "OPTIONS")[0] == 204


def generated(function):
    spec = Volume.from_array(np.zeros((64, 64, 640), np.uint8), layer_type="image").spec
    return Volume.from_function(function, spec)


def test_error_of_a_chunk_reaches_the_browser_and_the_log(caplog):
    def broken(box):
        raise ValueError(f"no voxels at {box}")

    with neuroglancer({"broken": generated(broken)}) as viewer:
        status, _, body = ask(f"{addresses(viewer)['broken']}/0/0-64_0-64_0-64")
    assert (status, body) == (500, b"ValueError: no voxels at 0-64_0-64_0-64")
    assert "no voxels at" in caplog.text


def test_missing_chunk_is_not_found():
    def missing(box):
        raise MissingChunkError(f"{box} was never written")

    with neuroglancer({"missing": generated(missing)}) as viewer:
        assert ask(f"{addresses(viewer)['missing']}/0/0-64_0-64_0-64")[0] == 404


def test_chunk_that_the_browser_gave_up_is_never_computed(monkeypatch):
    go, computed = threading.Event(), []
    begun, taken, closed = (threading.Semaphore(0) for _ in range(3))

    def slow(box):
        computed.append(box.start[2])
        begun.release()
        go.wait(60)
        return np.zeros(box.shape, np.uint8)

    def on_connection_close(handler):
        noticed(handler)
        closed.release()

    noticed = ComputedHandler.on_connection_close
    monkeypatch.setattr(ComputedHandler, "prepare", lambda _: taken.release())
    monkeypatch.setattr(ComputedHandler, "on_connection_close", on_connection_close)
    with neuroglancer({"slow": generated(slow)}) as viewer:
        url = urllib.parse.urlsplit(addresses(viewer)["slow"])
        waiting = []
        for x in range(0, 640, 64):
            waiting.append(http.client.HTTPConnection(url.netloc, timeout=60))
            waiting[-1].request("GET", f"{url.path}/0/{x}-{x + 64}_0-64_0-64")
        try:
            assert all(begun.acquire(timeout=60) for _ in range(4))
            assert all(taken.acquire(timeout=60) for _ in waiting)  # one closed before would have no handler to notice
            for connection in waiting:
                connection.close()
            assert all(closed.acquire(timeout=60) for _ in waiting)
        finally:
            go.set()
        assert ask(f"http://{url.netloc}{url.path}/0/0-64_0-64_0-64")[0] == 200
    assert len(computed) == 5
