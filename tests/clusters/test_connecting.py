import socket
import sys
from types import SimpleNamespace

import pytest

from daskflow.clusters import Threads, connect, script_is_guarded, targets
from daskflow.errors import JobError, ParameterError


def test_threads_is_a_pool_in_this_process():
    with connect("threads", workers=2, threads=3, memory="1GB") as pool:
        assert isinstance(pool, Threads)
        assert (pool.threads, pool.memory) == (6, 10**9)


def test_names_are_the_modules_of_the_package():
    assert {"local", "threads"} <= set(targets())
    assert "connecting" not in targets()


@pytest.mark.parametrize("target", ["nowhere", "connecting", "../local", ""])
def test_unknown_name_is_refused_with_the_known_ones(target):
    with pytest.raises(ParameterError, match="local, threads or an address"):
        connect(target)


@pytest.mark.parametrize("option", ["workers", "threads"])
def test_no_workers_are_refused(option):
    with pytest.raises(ParameterError, match=f"{option} 0 must be at least 1"):
        connect("local", **{option: 0})


def test_workers_at_an_address_cannot_be_chosen():
    with pytest.raises(ParameterError, match="workers, memory cannot be chosen for tcp://host:1"):
        connect("tcp://host:1", workers=2, memory="1GB")


def test_address_without_a_scheduler_is_an_error_in_time():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(JobError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1"):
            connect(f"tcp://127.0.0.1:{taken.getsockname()[1]}", timeout=1)


@pytest.mark.parametrize(
    ("text", "guarded"), [("print()", False), ('if __name__ == "__main__":\n    print()', True), (None, False)]
)
def test_script_that_would_run_again_in_workers_is_told(tmp_path, monkeypatch, text, guarded):
    script = tmp_path / "<stdin>"
    if text is not None:
        script.write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(script), __spec__=None))
    assert script_is_guarded() == guarded


def test_notebook_has_nothing_to_run_again(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace())
    assert script_is_guarded()
