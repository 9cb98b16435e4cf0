"""Servers that stand for object stores: S3, GCS, and one in front of another that makes it fail as asked."""

from __future__ import annotations

import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def in_front_of(server: str, fault: Callable[[str, str], str]) -> Iterator[str]:
    """Pass requests on to a server, but for those to which `fault(method, path)` answers.

    Its answers: "lose" passes the request on and closes the connection instead of answering, "reset" closes it at once,
    "503 Slow Down" and the like are sent back; "" is not a fault.
    """

    class Front(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wrong = fault(self.command, self.path)
            self.close_connection = wrong in ("lose", "reset")
            if wrong[:1].isdigit():
                code, _, reason = wrong.partition(" ")
                self.answer(int(code), reason, [], b"")
            elif wrong != "reset":
                back = http.client.HTTPConnection(server.removeprefix("http://"))
                back.request(self.command, self.path, body, dict(self.headers))
                answer = back.getresponse()
                content = answer.read()
                back.close()
                if wrong != "lose":
                    self.answer(answer.status, answer.reason, answer.getheaders(), content)

        def answer(self, status: int, reason: str, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status, reason)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                    self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Front) as front:
        front.daemon_threads = True
        thread = threading.Thread(target=front.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{front.server_address[1]}"
        front.shutdown()
        thread.join()
