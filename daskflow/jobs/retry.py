"""Which blocks are tried again, when, and which must be tried alone."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from daskflow.jobs.batch import Failure

_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0


class Retries:
    """Blocks that raised and wait for their next try, and suspects: blocks whose worker died.

    A suspect may be innocent: another block of the worker may have killed it. So it is tried again with nothing else
    in flight, and blamed only when its worker then dies `allowed` + 1 times.

    Args:
        allowed: how often a block is tried again.
        clock: seconds, for waiting.
    """

    def __init__(self, allowed: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowed = allowed
        self._clock = clock
        self._waiting: list[tuple[float, int]] = []
        self._attempts: dict[int, int] = {}
        self._deaths: dict[int, int] = {}
        self._suspects: deque[int] = deque()
        self.count = 0

    def failed(self, failure: Failure) -> Failure | None:
        """Take a block that raised; return its failure if it is not tried again."""
        attempts = self._attempts[failure.index] = self._attempts.get(failure.index, 0) + 1
        if attempts > self._allowed:
            return replace(failure, attempts=attempts)
        self.count += 1
        delay = min(_FIRST_DELAY * 4 ** (attempts - 1), _LONGEST_DELAY)
        heapq.heappush(self._waiting, (self._clock() + delay, failure.index))
        return None

    def suspect(self, blocks: Iterable[int]) -> None:
        """Take blocks that were on a worker when it died, with others."""
        self._suspects.extend(blocks)

    def died_alone(self, index: int, deaths: int) -> int | None:
        """Take a suspect whose workers died with nothing else in flight; return how often, if it is to blame."""
        total = self._deaths[index] = self._deaths.get(index, 0) + deaths
        if total > self._allowed:
            return total
        self.count += 1
        self._suspects.appendleft(index)
        return None

    def due(self, most: int) -> list[int]:
        """Return up to `most` blocks whose wait is over; they wait no longer."""
        blocks: list[int] = []
        while len(blocks) < most and self._waiting and self._waiting[0][0] <= self._clock():
            blocks.append(heapq.heappop(self._waiting)[1])
        return blocks

    def next_suspect(self) -> int | None:
        """Return a block to be tried alone; it is a suspect no longer."""
        return self._suspects.popleft() if self._suspects else None

    @property
    def waiting(self) -> bool:
        """Whether blocks wait for their next try."""
        return bool(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting or self._suspects)
