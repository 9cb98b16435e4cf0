from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

from daskflow.stores.counting import count, counting


def test_what_is_counted_inside_adds_up() -> None:
    with counting() as counts:
        count("a")
        count("a", 4)
        count("b", 0)
    count("a")
    assert counts == {"a": 5, "b": 0}


def test_an_outer_block_sees_what_an_inner_one_counts() -> None:
    with counting() as outer:
        count("a")
        with counting() as inner:
            count("a")
    assert (outer["a"], inner["a"]) == (2, 1)


def test_threads_count_for_themselves() -> None:
    def work(number: int) -> int:
        with counting() as counts:
            for _ in range(number):
                count("a")
        return counts["a"]

    with counting() as mine, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(20))) == list(range(20))
    assert mine == {}


def test_a_copied_context_counts_for_its_origin_without_loss() -> None:
    with counting() as counts:
        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(lambda: [count("a") for _ in range(2000)],))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts["a"] == 8000
