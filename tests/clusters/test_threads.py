import threading
import time

import pytest

from daskflow.clusters import Threads
from daskflow.errors import JobError


def test_calls_run_side_by_side_and_give_their_results():
    barrier = threading.Barrier(3, timeout=60)
    with Threads(3) as pool:
        assert sorted(f.result(60) is not None for f in [pool.submit(barrier.wait) for _ in range(3)]) == [True] * 3


def test_exceptions_reach_the_future():
    with Threads(1) as pool:
        future = pool.submit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            future.result(60)
        assert pool.submit(int, "7").result(60) == 7


def test_queued_calls_can_be_cancelled():
    go = threading.Event()
    with Threads(1) as pool:
        first, second = pool.submit(go.wait, 60), pool.submit(int)
        while not first.running():
            time.sleep(0.01)
        assert second.cancel()
        assert not first.cancel()
        go.set()
        assert first.result(60)


def test_threads_end_with_the_pool():
    with Threads(2) as pool:
        threads = [pool.submit(threading.current_thread).result(60) for _ in range(4)]
        assert all(thread.daemon for thread in threads)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_closed_pool_takes_no_calls():
    with Threads(1) as pool:
        pass
    with pytest.raises(JobError, match="closed"):
        pool.submit(int)


def test_threads_fit_the_machine_unless_said():
    with Threads() as pool:
        assert pool.threads >= 1
        assert pool.memory > 10**8
