from __future__ import annotations

import functools
import http.server
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(command: list[str], url: str, **env: str) -> Iterator[str]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **env})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except urllib.error.HTTPError as answer:
                answer.close()
                break
            except OSError:
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    pytest.importorskip("moto", reason="the S3 emulator is not installed (moto[server])")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    yield from serve(command, f"http://127.0.0.1:{port}")


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket on an S3 emulator, which the environment points at."""
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_REGION", raising=False)
    import boto3

    boto3.client("s3", endpoint_url=moto).create_bucket(Bucket="bucket")
    return "s3://bucket"


@pytest.fixture(scope="session")
def gcs_emulator() -> Iterator[str]:
    pytest.importorskip("gcp_storage_emulator", reason="the GCS emulator is not installed (gcp-storage-emulator)")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", "bucket"]
    yield from serve(command, f"http://127.0.0.1:{port}")


@pytest.fixture
def gcs(gcs_emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket on a GCS emulator, which the environment points at."""
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", gcs_emulator)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_emulator)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    return "gs://bucket"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files; everything below /forbidden is refused."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/forbidden"):
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def http_files(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server's URL and the directory that it serves."""
    directory = tmp_path / "served"
    directory.mkdir()
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", directory
        server.shutdown()
        thread.join()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may read and enter, and only its owner write."""
    path = Path(tempfile.mkdtemp(prefix="daskflow-test-"))
    path.chmod(0o755)
    yield path
    path.chmod(0o755)
    shutil.rmtree(path)


@pytest.fixture
def run_unprivileged() -> Callable[..., str]:
    """Runs Python code as a user without rights over the tests' files, and returns what it prints."""
    return _run_unprivileged


def _run_unprivileged(code: str, *args: str) -> str:
    drop = "import os, daskflow.stores.opening as o; o.formats(); import tensorstore; os.getuid() or os.setuid(65534)\n"
    done = subprocess.run([sys.executable, "-c", drop + code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
