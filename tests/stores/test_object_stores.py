from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from emulators import in_front_of

from daskflow.errors import CorruptChunkError, MissingChunkError, StoreAccessError, StoreError, StoreNotFoundError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore
from daskflow.stores.base import Layout
from daskflow.stores.compressed import compress
from daskflow.stores.counting import counting
from daskflow.stores.opening import create_store, open_store
from daskflow.testing.stores import voxels, write_all

BOX = BoundingBox((5, 3, -7), (18, 24, 26))
SPEC = VolumeSpec(box=BOX, dtype="uint8", voxel_size=(40, 4, 4), layer_type="image")
LAYOUTS = {
    "chunks": Layout(chunk=(8, 16, 16)),
    "shards": Layout(chunk=(8, 16, 16), shard=(16, 32, 32)),
    "png": Layout(chunk=(8, 16, 16), encoding="png"),
}


@pytest.fixture(params=["s3", "gcs"])
def bucket(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


@pytest.mark.emulator
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_in_buckets_are_written_and_read(bucket: str, layout: str) -> None:
    if layout == "shards" and bucket.startswith("gs://"):
        pytest.skip("the GCS emulator gives no generations, which reading inside shards needs")
    url = f"{bucket}/written-{layout}"
    store = create_store(url, SPEC, layout=LAYOUTS[layout])
    array = voxels(SPEC)
    array[:8, :16, :16] = 0
    write_all(store, array)
    store.check_writable()
    opened = open_store(url)
    assert opened.spec == store.spec
    np.testing.assert_array_equal(opened.read(BOX), array)


@pytest.mark.emulator
@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_chunks_in_a_bucket_are_noticed(s3: str, layout: str) -> None:
    url = f"{s3}/missing-{layout}"
    store = create_store(url, SPEC, layout=LAYOUTS[layout])
    first = BoundingBox.from_size(BOX.start, store.spec.write_unit or (0, 0, 0)).clip(BOX)
    store.write(first, voxels(SPEC)[first.slices(BOX)])
    with pytest.raises(MissingChunkError, match="fill_missing"):
        store.read(BOX)
    with counting() as counts:
        found = open_store(url, fill_missing=True).read(BOX)
    assert np.count_nonzero(found) == first.size
    assert counts["missing_chunks"] == {"chunks": 11, "shards": 4, "png": 11}[layout]


@pytest.mark.emulator
@pytest.mark.parametrize("name", ["layer", "image.zarr"])
def test_the_fingerprint_in_a_bucket_follows_provenance_and_not_other_mips(bucket: str, name: str) -> None:
    url = f"{bucket}/fingerprint-{name}"
    store = create_store(url, SPEC, layout=LAYOUTS["chunks"])
    before = store.fingerprint()
    for mip in (1, 2):
        size = (40 * 2**mip, 4 * 2**mip, 4 * 2**mip)
        coarse = SPEC.replace(box=BOX.coarsen(2**mip), voxel_size=size, chunk_origin=None)
        create_store(url, coarse, mip=mip, layout=LAYOUTS["chunks"])
        assert open_store(url).fingerprint() == before
    beside = f"{url}/provenance" if name == "layer" else f"{url}.provenance.json"
    kvstore.write_bytes(beside, b'{"processing": [{"method": {"mip": 0}, "date": "today"}]}')
    assert open_store(url).fingerprint() != before


@pytest.mark.emulator
def test_objects_in_buckets_are_written_listed_and_deleted(bucket: str) -> None:
    root = f"{bucket}/objects"
    for name in ("a", "b/c", "b/d"):
        kvstore.write_bytes(f"{root}/{name}", name.encode())
    assert kvstore.list_names(root) == ["a", "b/c", "b/d"]
    assert kvstore.read_bytes(f"{root}/b/c") == b"b/c"
    assert kvstore.exists(f"{root}/a")
    assert not kvstore.exists(f"{root}/b")
    kvstore.delete_tree(f"{root}/b")
    kvstore.delete(f"{root}/nothing")
    assert kvstore.list_names(root) == ["a"]


@pytest.mark.emulator
def test_of_many_writers_to_s3_one_finds_the_object_absent(s3: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda i: kvstore.write_if_absent(f"{s3}/lock", b"%d" % i), range(4)))
    assert sum(won) == 1
    assert kvstore.read_bytes(f"{s3}/lock") == b"%d" % won.index(True)


@pytest.mark.emulator
def test_object_whose_answer_was_lost_is_ones_own(s3: str, moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []

    def lose_first(method: str, path: str) -> str:
        if method != "PUT" or lost:
            return ""
        lost.append(path)
        return "lose"

    with in_front_of(moto, lose_first) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        assert kvstore.write_if_absent(f"{s3}/lost", b"mine")
        assert lost == ["/bucket/lost"]
        assert not kvstore.write_if_absent(f"{s3}/lost", b"theirs")
        assert kvstore.read_bytes(f"{s3}/lost") == b"mine"


@pytest.mark.emulator
def test_of_many_writers_to_s3_one_replaces_what_all_have_read(s3: str) -> None:
    url = f"{s3}/replaced"
    kvstore.write_bytes(url, b"old")
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda i: kvstore.replace(url, b"old", b"%d" % i), range(4)))
    assert sum(won) == 1
    assert kvstore.read_bytes(url) == b"%d" % won.index(True)


@pytest.mark.emulator
def test_whether_a_store_knows_conditions_is_found_by_trying(s3: str, gcs: str) -> None:
    assert kvstore.is_conditional(s3)
    assert not kvstore.is_conditional(gcs)  # the emulator, not GCS


@pytest.mark.emulator
def test_nothing_in_a_bucket_is_said_so(bucket: str) -> None:
    with pytest.raises(StoreNotFoundError, match=f"{bucket}/nothing"):
        open_store(f"{bucket}/nothing")


@pytest.mark.emulator
def test_a_bucket_that_does_not_exist_is_an_error(s3: str) -> None:
    with pytest.raises(StoreError, match="s3://no-such-bucket"):
        create_store("s3://no-such-bucket/layer", SPEC)
    with pytest.raises(StoreAccessError, match="s3://no-such-bucket"):
        kvstore.check_writable("s3://no-such-bucket/layer")


@pytest.mark.emulator
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compress", ["gzip", "br", False])
def test_what_cloudvolume_writes_to_s3_is_read_and_back(s3: str, compress: str | bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cloudvolume import CloudVolume
    array = np.random.default_rng(0).integers(1, 255, (20, 17, 9), dtype=np.uint8)
    url = f"{s3}/cloudvolume-{compress}"
    CloudVolume.from_numpy(
        array, vol_path=url, resolution=(4, 4, 40), chunk_size=(8, 8, 4), compress=compress, progress=False
    )
    store = open_store(url)
    np.testing.assert_array_equal(store.read(store.spec.box), array.T)
    ours = create_store(f"{url}-ours", store.spec, layout=Layout(chunk=(4, 8, 8)))
    write_all(ours, array.T)
    np.testing.assert_array_equal(np.asarray(CloudVolume(f"{url}-ours", progress=False)[:])[..., 0], array)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_on_a_web_server_are_read(http_files: tuple[str, Path], layout: str) -> None:
    base, directory = http_files
    write_all(create_store(directory / "layer", SPEC, layout=LAYOUTS[layout]), voxels(SPEC))
    store = open_store(f"{base}/layer")
    np.testing.assert_array_equal(store.read(BOX), voxels(SPEC))
    with pytest.raises(StoreAccessError, match="read-only"):
        store.write(BOX, voxels(SPEC))
    with pytest.raises(StoreAccessError, match="read-only"):
        store.check_writable()
    with pytest.raises(StoreAccessError, match="read-only"):
        create_store(f"{base}/new", SPEC)


def test_a_chunk_missing_on_a_web_server_is_noticed(http_files: tuple[str, Path]) -> None:
    base, directory = http_files
    write_all(create_store(directory / "layer", SPEC, layout=LAYOUTS["chunks"]), voxels(SPEC))
    (directory / "layer" / "4_4_40" / "-7-9_3-19_5-13").unlink()
    with pytest.raises(MissingChunkError, match="-7-9_3-19_5-13"):
        open_store(f"{base}/layer").read(BOX)
    with counting() as counts:
        found = open_store(f"{base}/layer", fill_missing=True).read(BOX)
    assert counts == {"missing_chunks": 1}
    assert not found[:8, :16, :16].any()
    np.testing.assert_array_equal(found[8:], voxels(SPEC)[8:])


def test_a_chunk_cut_short_on_a_web_server_is_noticed(http_files: tuple[str, Path]) -> None:
    base, directory = http_files
    write_all(create_store(directory / "layer", SPEC, layout=LAYOUTS["chunks"]), voxels(SPEC))
    chunk = directory / "layer" / "4_4_40" / "-7-9_3-19_5-13"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(CorruptChunkError, match="-7-9_3-19_5-13"):
        open_store(f"{base}/layer", fill_missing=True).read(BOX)


def test_what_a_web_server_refuses_or_lacks_is_told_apart(http_files: tuple[str, Path]) -> None:
    base, _ = http_files
    with pytest.raises(StoreNotFoundError, match=f"{base}/nothing"):
        open_store(f"{base}/nothing")
    with pytest.raises(StoreAccessError, match=f"{base}/forbidden/layer"):
        open_store(f"{base}/forbidden/layer")


FAULTY = """
import socket, sys, threading, time
from daskflow.errors import StoreError
from daskflow.stores import kvstore

answer = sys.argv[1].encode()
kvstore._RETRIES.update(max_retries=2, initial_delay="50ms", max_delay="100ms")
server = socket.create_server(("127.0.0.1", 0))
asked, kept = [], []

def serve():
    while True:
        connection, _ = server.accept()
        kept.append(connection)
        connection.recv(65536)
        asked.append(1)
        if answer:
            connection.sendall(b"HTTP/1.1 " + answer + b"\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
            connection.close()

threading.Thread(target=serve, daemon=True).start()
begin = time.monotonic()
try:
    kvstore.read_bytes(f"http://127.0.0.1:{server.getsockname()[1]}/layer/info")
except StoreError as error:
    print(type(error).__name__, len(asked), time.monotonic() - begin)
"""


@pytest.mark.parametrize(
    ("answer", "expected", "asked"),
    [
        ("500 Internal Server Error", "StoreError", 3),
        ("503 Service Unavailable", "StoreError", 3),
        ("429 Too Many Requests", "StoreError", 3),
        ("", "StoreError", 3),
        ("401 Unauthorized", "CredentialsError", 1),
        ("403 Forbidden", "CredentialsError", 1),
    ],
    ids=lambda value: str(value) or "silence",
)
def test_a_faulty_server_is_asked_again_a_few_times_and_never_waited_for_long(
    answer: str, expected: str, asked: int
) -> None:
    quick = {**os.environ, "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "1"}
    done = subprocess.run([sys.executable, "-c", FAULTY, answer], env=quick, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    kind, requests, seconds = done.stdout.split()
    assert (kind, int(requests)) == (expected, asked)
    assert float(seconds) < 30  # three times the usual 12 are more


def test_layers_in_memory_are_shared_in_this_process() -> None:
    url = "memory://test-object-stores/layer"
    write_all(create_store(url, SPEC, layout=LAYOUTS["chunks"]), voxels(SPEC))
    np.testing.assert_array_equal(open_store(url).read(BOX), voxels(SPEC))
    kvstore.delete_tree(url)
    with pytest.raises(StoreNotFoundError):
        open_store(url)


@pytest.mark.emulator
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("encoding", ["raw", "png", "compressed_segmentation", "crackle"])
@pytest.mark.parametrize("place", ["s3", "http"])
def test_chunk_files_copied_with_their_endings_are_found(
    request: pytest.FixtureRequest, tmp_path: Path, place: str, encoding: str
) -> None:
    dtype = "uint8" if encoding == "png" else "uint32"
    layout = Layout(chunk=(8, 16, 16), encoding=encoding, compression="gzip")
    if place == "s3":
        url = f"{request.getfixturevalue('s3')}/endings-{encoding}"
        directory = tmp_path
    else:
        url, directory = request.getfixturevalue("http_files")
    store = create_store(directory, SPEC.replace(dtype=dtype), layout=layout)
    array = voxels(store.spec)
    write_all(store, array)
    lost = directory / "4_4_40" / "9-25_3-19_5-13.gz"
    lost.rename(tmp_path / "lost")
    assert all(path.suffix == ".gz" for path in (directory / "4_4_40").iterdir())
    if place == "s3":
        for path in directory.rglob("*"):
            if path.is_file() and path.name != "lost":
                kvstore.write_bytes(f"{url}/{path.relative_to(directory)}", path.read_bytes())
    with pytest.raises(MissingChunkError, match="9-25_3-19_5-13"):
        open_store(url).read(BOX)
    found = open_store(url, fill_missing=True)
    for _ in range(2):
        with counting() as counts:
            read = found.read(BOX)
        assert counts == {"missing_chunks": 1}
        assert not read[:8, :16, 16:32].any()
        np.testing.assert_array_equal(read[8:], array[8:])
        np.testing.assert_array_equal(read[:, 16:], array[:, 16:])


@pytest.mark.emulator
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compress", ["gzip", "br", False])
@pytest.mark.parametrize("encoding", ["compresso", "crackle", "compressed_segmentation"])
def test_labels_that_cloudvolume_writes_to_s3_are_read_and_back(s3: str, encoding: str, compress: str | bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cloudvolume import CloudVolume
    array = np.random.default_rng(0).integers(0, 9, (20, 17, 9), dtype=np.uint64) + 2**40
    url = f"{s3}/cloudvolume-{encoding}-{compress}"
    options = {"chunk_size": (8, 8, 4), "encoding": encoding, "compress": compress, "progress": False}
    CloudVolume.from_numpy(array, vol_path=url, resolution=(4, 4, 40), layer_type="segmentation", **options)
    store = open_store(url)
    np.testing.assert_array_equal(store.read(store.spec.box), array.T)
    for shard in (None, (16, 32, 32)):
        layout = Layout(chunk=(4, 8, 8), encoding=encoding, shard=shard)
        ours = create_store(f"{url}-ours-{shard is None}", store.spec, layout=layout)
        write_all(ours, array.T)
        back = CloudVolume(ours.url, progress=False)
        np.testing.assert_array_equal(np.asarray(back[:])[..., 0], array)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_chunks_that_a_server_says_are_compressed_are_read(tmp_path: Path, encoding: str) -> None:
    """As CloudVolume's are in buckets: plain names, and the compression in a header."""
    from numcodecs import Zstd

    packers = {
        "gzip": lambda data: compress(data, "gzip"),
        "br": lambda data: compress(data, "br"),
        "zstd": Zstd().encode,
    }
    spec = SPEC.replace(dtype="uint32")
    for name in ("raw", "compressed_segmentation", "crackle"):
        write_all(create_store(tmp_path / name, spec, layout=Layout(chunk=(8, 16, 16), encoding=name)), voxels(spec))

    class Packing(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / self.path.lstrip("/")
            body = path.read_bytes()
            self.send_response(200)
            if path.name != "info":
                body = packers[encoding](body)
                self.send_header("Content-Encoding", encoding)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Packing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("raw", "compressed_segmentation", "crackle"):
            store = open_store(f"http://127.0.0.1:{server.server_address[1]}/{name}")
            np.testing.assert_array_equal(store.read(BOX), voxels(spec))
        server.shutdown()
