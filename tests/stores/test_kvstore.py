from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskflow
from daskflow.errors import CorruptChunkError, CredentialsError, JobError, ParameterError, StoreAccessError, StoreError
from daskflow.stores import answers, kvstore
from daskflow.stores.answers import credential_source, wait


@pytest.fixture(params=["file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "file" else f"memory://test-kvstore/{tmp_path.name}"


def test_objects_are_written_read_listed_and_deleted(root: str) -> None:
    for name, data in {"a": b"1", "b/c": b"2", "b/d": b"", "bb": b"3"}.items():
        kvstore.write_bytes(kvstore.join(root, name), data)
    assert kvstore.read_bytes(f"{root}/b/c") == b"2"
    assert kvstore.read_bytes(f"{root}/b/d") == b""
    assert kvstore.list_names(root) == ["a", "b/c", "b/d", "bb"]
    assert kvstore.list_names(root, "b/") == ["b/c", "b/d"]
    assert kvstore.list_names(f"{root}/b") == ["c", "d"]
    kvstore.delete(f"{root}/a")
    kvstore.delete_tree(f"{root}/b")
    assert kvstore.list_names(root) == ["bb"]


def test_a_range_of_an_object_is_read_alone(root: str) -> None:
    url = kvstore.join(root, "object")
    kvstore.write_bytes(url, bytes(range(100)))
    assert kvstore.read_range(url, 10, 20) == bytes(range(10, 20))
    assert kvstore.read_range(url, 5, 5) == b""
    assert kvstore.read_range(kvstore.join(root, "nothing"), 0, 4) is None
    with pytest.raises(CorruptChunkError):
        kvstore.read_range(url, 90, 101)


def test_a_server_without_byte_ranges_is_told_from_a_damaged_object(http_files: tuple[str, Path]) -> None:
    url, folder = http_files
    (folder / "whole").mkdir()
    (folder / "whole/object").write_bytes(bytes(100))
    with pytest.raises(StoreError, match="without byte ranges") as raised:
        kvstore.read_range(f"{url}/whole/object", 10, 20)
    assert not isinstance(raised.value, CorruptChunkError)


def test_what_is_absent_reads_as_none_and_is_no_error_to_delete(root: str) -> None:
    assert kvstore.read_bytes(f"{root}/nothing") is None
    assert not kvstore.exists(f"{root}/nothing")
    assert kvstore.list_names(f"{root}/nothing") == []
    kvstore.delete(f"{root}/nothing")
    kvstore.delete_tree(f"{root}/nothing")


def test_a_directory_is_no_object(tmp_path: Path) -> None:
    kvstore.write_bytes(str(tmp_path / "a" / "b"), b"1")
    assert not kvstore.exists(str(tmp_path / "a"))
    assert kvstore.exists(str(tmp_path / "a" / "b"))


def test_of_many_writers_one_finds_the_object_absent(root: str) -> None:
    url = f"{root}/lock"
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: kvstore.write_if_absent(url, b"%d" % i), range(8)))
    assert sum(won) == 1
    assert kvstore.read_bytes(url) == b"%d" % won.index(True)


def test_of_many_processes_one_finds_the_object_absent(tmp_path: Path) -> None:
    code = "import os, sys; from daskflow.stores import kvstore"
    code += "; print(kvstore.write_if_absent(sys.argv[1], os.urandom(9)))"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in running) == ["False", "False", "True"]


def test_of_many_writers_one_replaces_what_all_have_read(root: str) -> None:
    url = f"{root}/lock"
    kvstore.write_bytes(url, b"old")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: kvstore.replace(url, b"old", b"%d" % i), range(8)))
    assert sum(won) == 1
    assert kvstore.read_bytes(url) == b"%d" % won.index(True)
    assert not kvstore.replace(url, b"old", None)
    assert kvstore.replace(url, b"%d" % won.index(True), None)
    assert not kvstore.exists(url)
    assert kvstore.is_conditional(root)


def test_readers_see_the_old_object_or_the_new_never_a_part(tmp_path: Path) -> None:
    url, old, new = str(tmp_path / "object"), b"a" * 2**20, b"b" * 2**20
    kvstore.write_bytes(url, old)
    seen: set[bytes | None] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(Path(url).read_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(20):
        kvstore.write_bytes(url, new)
        kvstore.write_bytes(url, old)
    stop.set()
    watcher.join()
    assert seen <= {old, new}


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("/a/b/", "file:///a/b"),
        ("/a/../c", "file:///c"),
        ("file:///a b/c%20d/", "file:///a b/c%20d"),
        ("s3://bucket/key/", "s3://bucket/key"),
        ("gs://bucket", "gs://bucket"),
        ("https://host:80/x", "https://host:80/x"),
        ("memory://m/", "memory://m"),
    ],
)
def test_urls_are_normalised(given_url: str, expected: str) -> None:
    assert kvstore.normalise(given_url) == expected


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kvstore.normalise("layer") == f"file://{tmp_path}/layer"
    assert kvstore.normalise("~").startswith("file:///")
    assert kvstore.local_path("layer") == tmp_path / "layer"


@pytest.mark.parametrize("url", ["", "a\0b", "ftp://host/x", "s3://", "http:///x"])
def test_urls_that_cannot_be_are_refused(url: str) -> None:
    with pytest.raises(ParameterError):
        kvstore.normalise(url)


@pytest.mark.parametrize("name", ["../x", "a/../b", "/abs", "a//b", "", ".", "a\0", "..%2f", "a b", "é", "a\n"])
def test_names_that_could_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="safe name"):
        kvstore.join("memory://m", name)


@given(st.text(max_size=12))
def test_joined_names_stay_below_the_root(name: str) -> None:
    try:
        joined = kvstore.join("/root/of/all", name)
    except ParameterError:
        return
    assert kvstore.normalise(joined).startswith("file:///root/of/all/")


@pytest.mark.parametrize("path", ["with space", "per%20cent", "ünï", "plus+and&"])
def test_paths_are_taken_as_they_are(tmp_path: Path, path: str) -> None:
    kvstore.write_bytes(str(tmp_path / path / "x"), b"1")
    assert (tmp_path / path / "x").read_bytes() == b"1"
    assert kvstore.list_names(str(tmp_path / path)) == ["x"]


def test_secrets_in_urls_are_not_shown() -> None:
    assert kvstore.redact("https://user:pass@host/key?X-Amz-Signature=abc") == "https://host/key?..."


def test_writing_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreAccessError, match="cannot write"):
        kvstore.check_writable(str(tmp_path / "file" / "layer"))


def test_a_directory_without_write_permission_is_noticed_at_once(
    open_directory: Path, run_unprivileged: Callable[..., str]
) -> None:
    code = (
        "import sys, time; from daskflow.stores import kvstore; from daskflow.errors import StoreAccessError\n"
        "begin = time.monotonic()\n"
        "try: kvstore.check_writable(sys.argv[1])\n"
        "except StoreAccessError as error: print(time.monotonic() - begin, error)\n"
    )
    open_directory.chmod(0o555)
    seconds, message = run_unprivileged(code, str(open_directory)).split(" ", 1)
    assert float(seconds) < 20  # nothing is tried again
    assert "cannot write" in message
    assert str(open_directory) in message


def test_checking_a_writable_place_is_quick_and_leaves_nothing(tmp_path: Path) -> None:
    begin = time.process_time()
    kvstore.check_writable(str(tmp_path / "new"))
    assert time.process_time() - begin < 1
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.parametrize("url", ["/", "file:///", "s3://bucket", "gs://bucket"])
def test_whole_roots_are_not_deleted(url: str) -> None:
    with pytest.raises(ParameterError, match="will not delete all"):
        kvstore.delete_tree(url)


def test_a_tree_that_may_not_be_deleted_says_so(open_directory: Path, run_unprivileged: Callable[..., str]) -> None:
    kvstore.write_bytes(str(open_directory / "layer" / "a"), b"1")
    code = (
        "import sys; from daskflow.stores import kvstore; from daskflow.errors import StoreAccessError\n"
        "try: kvstore.delete_tree(sys.argv[1])\n"
        "except StoreAccessError as error: print(error)\n"
    )
    open_directory.chmod(0o555)
    (open_directory / "layer").chmod(0o555)
    assert "cannot delete" in run_unprivileged(code, str(open_directory / "layer"))
    (open_directory / "layer").chmod(0o755)
    assert kvstore.read_bytes(str(open_directory / "layer" / "a")) == b"1"


def test_http_is_read_only() -> None:
    for refused in (kvstore.write_bytes, kvstore.write_if_absent):
        with pytest.raises(StoreAccessError, match="read-only"):
            refused("http://127.0.0.1:1/x", b"")
    with pytest.raises(StoreAccessError, match="no listings"):
        kvstore.list_names("http://127.0.0.1:1/x")


def test_s3_is_configured_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name, raising=False)
    assert kvstore.kvstore_spec("s3://b/k") == {"driver": "s3", "bucket": "b", "path": "k/"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "YES")
    assert kvstore.kvstore_spec("s3://b") == {
        "driver": "s3",
        "bucket": "b",
        "path": "",
        "endpoint": "http://localhost:9000",
        "aws_region": "eu-central-1",
        "aws_credentials": {"type": "anonymous"},
    }


def test_silent_servers_are_given_up_unless_the_user_says_when(monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os; from daskflow.stores import kvstore; kvstore.context()\n"
        "print(os.environ['TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS'])"
    )
    for stated, expected in (("", "12"), ("7", "7")):
        monkeypatch.delenv("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", raising=False)
        if stated:
            monkeypatch.setenv("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", stated)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_threads_that_come_first_share_one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def slowly() -> object:
        time.sleep(0.05)
        made.append(object())
        return made[-1]

    monkeypatch.setattr(kvstore, "_new_context", functools.cache(slowly))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: kvstore.context(), range(4)))
    assert len(made) == 1
    assert found == made * 4


SECRET = "wJalr/XUtnFEMI+K7"


class Refusing(http.server.BaseHTTPRequestHandler):
    answer = (403, b"")
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        code, body = self.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Refusing]]]:
    kind = type("Refusing", (Refusing,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", base)
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", base)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET[::-1])
        yield base, kind
        server.shutdown()


ACTS: dict[str, Callable[[str], object]] = {
    "read": kvstore.read_bytes,
    "list": kvstore.list_names,
    "write": lambda url: kvstore.write_bytes(url, b"x"),
    "read_range": lambda url: kvstore.read_range(url, 0, 4),
    "replace": lambda url: kvstore.replace(url, b"old", b"x"),
    "is_conditional": kvstore.is_conditional,
    "write_if_absent": lambda url: kvstore.write_if_absent(url, b"x"),
    "delete_tree": kvstore.delete_tree,
}
LIST_OF_GCS = """
from daskflow.stores import kvstore
from daskflow.errors import CredentialsError
try:
    kvstore.list_names("gs://bucket/layer")
except CredentialsError as error:
    print(error)
"""
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
FORBIDDEN = json.dumps({"error": {"code": 403, "message": "no storage.objects.list access"}}).encode()


@pytest.mark.parametrize("answer", [(401, b""), (403, b""), (403, FORBIDDEN), (400, EXPIRED)], ids=str)
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_refused_credentials_are_named_by_their_source_and_asked_once(
    refusing: tuple[str, type[Refusing]], scheme: str, answer: tuple[int, bytes]
) -> None:
    base, server = refusing
    server.answer = answer
    host = {"s3": "s3://bucket", "http": base}[scheme]
    source = {
        "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN in the environment",
        "http": "none, as http URLs are read without",
    }[scheme]
    for name, act in ACTS.items():
        if scheme == "http" and not name.startswith("read"):
            continue
        server.asked = 0
        with pytest.raises(CredentialsError, match=source) as raised:
            act(f"{host}/layer")
        assert server.asked <= 2, name
        assert SECRET not in str(raised.value)


def test_refused_listing_of_gcs_is_not_taken_for_an_empty_one(refusing: tuple[str, type[Refusing]]) -> None:
    refusing[1].answer = (403, FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", LIST_OF_GCS], capture_output=True, text=True, check=True)
    assert "refuses to list with these credentials" in done.stdout


@pytest.mark.parametrize(
    ("names", "source"),
    [
        ({"AWS_NO_SIGN_REQUEST": "true"}, "none (anonymous), as AWS_NO_SIGN_REQUEST says"),
        ({"AWS_SHARED_CREDENTIALS_FILE": "FILE", "AWS_PROFILE": "lab"}, "profile 'lab' in FILE"),
        ({"GOOGLE_APPLICATION_CREDENTIALS": "FILE"}, "FILE, which GOOGLE_APPLICATION_CREDENTIALS names"),
        ({}, "the role of this machine, or none (anonymous): neither AWS_ACCESS_KEY_ID nor a file in ~/.aws is there"),
    ],
)
def test_source_of_credentials_is_what_the_environment_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: dict[str, str], source: str
) -> None:
    file = tmp_path / "credentials"
    file.write_text(f"[lab]\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value.replace("FILE", str(file)))
    scheme = "gs" if "GOOGLE_APPLICATION_CREDENTIALS" in names else "s3"
    assert credential_source(f"{scheme}://bucket/x") == source.replace("FILE", str(file))


def test_run_ends_when_its_credentials_are_refused(tmp_path: Path, refusing: tuple[str, type[Refusing]]) -> None:
    base, server = refusing
    daskflow.save(daskflow.create_chunk(size=(64, 8, 8)), str(tmp_path / "layer"), chunk=(8, 8, 8)).run(progress=False)
    info = (tmp_path / "layer" / "info").read_bytes()

    def answer(self: Refusing) -> None:
        self.answer = (200, info) if self.path.endswith("/info") else (403, b"") if "_" in self.path else (404, b"")
        Refusing.do_GET(self)

    server.do_GET = server.do_HEAD = answer  # type: ignore[method-assign]
    server.asked = 0
    job = daskflow.save(daskflow.open(f"{base}/layer"), str(tmp_path / "out"), chunk=(8, 8, 8), block=(8, 8, 8))
    before = server.asked
    with pytest.raises(JobError, match=r"refuses to read .* none, as http URLs are read without"):
        job.run(progress=False)
    assert server.asked - before < 15


def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Slow:
        asked = 0

        def result(self, timeout: float | None = None) -> str:
            self.asked += 1
            if self.asked < 3:
                raise TimeoutError
            return f"after {timeout:g} s"

        def done(self) -> bool:
            return False

    assert wait(Slow(), "s3://me:secret@bucket/x") == "after 10 s"
    assert caplog.messages == ["waiting for s3://bucket/x for 10 s", "waiting for s3://bucket/x for 20 s"]


def test_server_that_never_answers_is_given_up_within_a_minute() -> None:
    kvstore.context()
    attempts, pauses = kvstore._RETRIES["max_retries"] + 1, (1, 2, 4, 8)
    silent = int(os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"])
    assert attempts * silent + sum(pauses[: attempts - 1]) <= 60


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where CloudVolume's secrets lie, in a home with no other credentials."""
    monkeypatch.setattr(answers, "_SECRETS", {})
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION")
    for name in (*names, "AWS_NO_SIGN_REQUEST", "GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_VOLUME_DIR"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is forgotten afterwards
        monkeypatch.delenv(name)
    folder = tmp_path / ".cloudvolume" / "secrets"
    folder.mkdir(parents=True)
    return folder


def test_secrets_of_cloudvolume_are_used_where_nothing_else_is_configured(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvstore.kvstore_spec("s3://bucket/x")
    assert "AWS_ACCESS_KEY_ID" not in os.environ
    for name in ("aws-secret.json", "google-secret.json"):
        (secrets / name).write_text(json.dumps({"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET}))
    assert kvstore.kvstore_spec("s3://bucket/x")["aws_credentials"] == {"type": "environment"}
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
    assert credential_source("s3://bucket/x") == str(secrets / "aws-secret.json")
    kvstore.kvstore_spec("gs://bucket/x")
    assert os.environ["GOOGLE_APPLICATION_CREDENTIALS"] == str(secrets / "google-secret.json")


def test_secrets_of_cloudvolume_give_way_to_the_environment_and_damaged_ones_are_refused(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "aws-secret.json").write_text('{"AWS_ACCESS_KEY_ID": "key"}')
    with pytest.raises(CredentialsError, match="aws-secret"):
        kvstore.kvstore_spec("s3://bucket/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    kvstore.kvstore_spec("s3://bucket/x")
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"
