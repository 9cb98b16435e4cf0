from __future__ import annotations

import functools
import http.server
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from emulators import gcs, gcs_emulator, moto, s3

__all__ = ["gcs", "gcs_emulator", "moto", "s3"]  # fixtures


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and ranges of those that are not below /whole; everything below /forbidden is refused."""

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/forbidden"):
            self.send_error(403)
        elif (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))) and (
            not self.path.startswith("/whole")
        ):
            self._send_part(int(asked[1]), int(asked[2]))
        else:
            super().do_GET()

    def _send_part(self, first: int, last: int) -> None:
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            self.send_error(404)
            return
        data = file.read_bytes()
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


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
    loaded = "import os, daskflow.stores.opening as o, tensorstore; [f.store for f in o.formats()]\n"
    drop = f"{loaded}os.getuid() or os.setuid(65534)\n"
    done = subprocess.run([sys.executable, "-c", drop + code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
