"""A graph server that answers as PyChunkGraph's API says; no real one is reached from here."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

import daskflow
from daskflow.clusters import Threads
from daskflow.errors import ParameterError, StoreAccessError
from daskflow.stores import graphene
from daskflow.stores.opening import open_store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

SUPERVOXELS = np.random.default_rng(0).integers(0, 6, (20, 30, 40)).astype(np.uint64)
MERGED = 1_700_000_000  # from then on 1 and 2 are one object
TABLE = "/segmentation/table/minnie"


def roots(supervoxels, moment):
    """What the server says: objects of the topmost layer, 4."""
    joined = np.where((supervoxels == 2) & (moment >= MERGED), 1, supervoxels).astype(np.uint64)
    return np.where(joined == 0, 0, joined | np.uint64(4 << 56))


@pytest.fixture
def server(tmp_path, monkeypatch):
    layer = tmp_path / "supervoxels"
    volume = daskflow.open(SUPERVOXELS, voxel_size=(40, 8, 8), voxel_offset=(3, 0, -8), layer_type="segmentation")
    with Threads(1) as pool:
        daskflow.save(volume, layer, chunk=(16, 16, 16), levels=1).run(pool, progress=False)
    graph = {"chunk_size": [16, 16, 16], "n_layers": 4, "n_bits_for_layer_id": 8, "bounding_box": [3, 2, 2]}
    info = {
        **json.loads((layer / "info").read_text()),
        "data_dir": f"file://{layer}",
        "graph": graph,
        "app": {"supported_api_versions": [0, 1]},
    }

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(json.dumps(info).encode() if self.path == f"{TABLE}/info" else None)

        def do_POST(self):
            asked = urlparse(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = asked.path == "/segmentation/api/v1/table/minnie/roots_binary"
            right = right and self.headers["Authorization"] == "Bearer abcdef"
            moment = float(parse_qs(asked.query)["timestamp"][0])
            self.reply(roots(np.frombuffer(body, np.uint64), moment).tobytes() if right else None)

        def reply(self, content):
            self.send_response(200 if content is not None else 404)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *words):
            pass

    monkeypatch.setattr("cloudvolume.datasource.graphene.metadata.cave_credentials", lambda _: {"token": "abcdef"})
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=running.serve_forever)
    thread.start()
    yield f"graphene://http://127.0.0.1:{running.server_port}{TABLE}"
    running.shutdown()
    running.server_close()
    thread.join()
    graphene._graph.cache_clear()


def test_supervoxels_are_read_as_they_lie(server):
    volume = daskflow.open(server)
    assert (volume.box.start, volume.spec.voxel_size, volume.spec.kind) == ((3, 0, -8), (40, 8, 8), "segmentation")
    np.testing.assert_array_equal(volume.read(), SUPERVOXELS)
    assert daskflow.open(server, mip=-1).stored.mip == 1


@pytest.mark.parametrize("moment", [MERGED - 1, MERGED])
def test_objects_are_those_of_a_time_in_any_blocks(server, tmp_path, moment):
    volume = daskflow.open(server, time=moment)
    expected = roots(SUPERVOXELS, moment)
    np.testing.assert_array_equal(volume.read(), expected)
    np.testing.assert_array_equal(volume.with_block((7, 30, 11)).data.compute(scheduler="synchronous"), expected)
    with Threads(2) as pool:
        assert daskflow.save(volume, tmp_path / "flat", chunk=(8, 16, 16)).run(pool, progress=False).ok
    np.testing.assert_array_equal(daskflow.open(tmp_path / "flat").read(), expected)


def test_times_are_told_apart_and_one_ahead_is_refused(server):
    states = [json.dumps(open_store(server, time=moment).fingerprint()) for moment in (None, MERGED - 1, MERGED)]
    assert len(set(states)) == 3
    with pytest.raises(ParameterError, match="lies ahead"):
        daskflow.open(server, time=int(time.time()) + 1000)


def test_it_is_only_read_and_a_server_that_refuses_is_named(server):
    with pytest.raises(StoreAccessError, match="only read"):
        open_store(server).check_writable()
    with pytest.raises(ParameterError, match="graphene is only read"):
        daskflow.save(daskflow.open(server), server)
    with pytest.raises(StoreAccessError, match=r"graphene volume http://127.0.0.1:\d+/segmentation/table/other .*404"):
        daskflow.open(server.replace("minnie", "other"))
