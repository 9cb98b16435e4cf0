"""fpzip's decoder in a process of its own, because a stream that is damaged takes down the process that decodes it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import queue
import struct
import subprocess
import sys
from typing import Any

_REQUEST = struct.Struct("<QQ")
_PADDING = 1024

_Process = subprocess.Popen[bytes]


@functools.cache
def _idle(owner: int) -> queue.SimpleQueue[_Process]:  # noqa: ARG001
    """Return the processes that are free, of the process with that id: one that was forked off must not share them."""
    return queue.SimpleQueue()


def decompress(data: bytes, nbytes: int) -> bytes:
    """Return the numbers, in the order in which they were compressed, that a stream of fpzip holds.

    It is decoded twice, with other bytes after its end: only what was cut short can become other numbers by them.

    Args:
        data: the stream, whose header was checked.
        nbytes: of the numbers.

    Raises:
        ValueError: the stream is damaged or cut short.
    """
    try:
        process = _idle(os.getpid()).get_nowait()
    except queue.Empty:
        process = _start()
    assert process.stdin is not None
    assert process.stdout is not None
    numbers = b""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(_REQUEST.pack(len(data), nbytes))
        process.stdin.write(data)
        process.stdin.flush()
        numbers = process.stdout.read(2 * nbytes)
    if len(numbers) < 2 * nbytes:
        _end(process)
        raise ValueError("fpzip breaks down over it")
    _idle(os.getpid()).put(process)
    if numbers[:nbytes] != numbers[nbytes:]:
        raise ValueError("it is cut short")
    return numbers[:nbytes]


def _start() -> _Process:
    command = [sys.executable, "-P", __file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _end(process: _Process) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    process.wait()


@atexit.register
def _end_all() -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            _end(_idle(os.getpid()).get_nowait())


def _serve(requests: Any, answers: Any) -> None:
    """Answer requests until there are no more."""
    import fpzip

    while head := requests.read(_REQUEST.size):
        length, nbytes = _REQUEST.unpack(head)
        data = requests.read(length)
        for beyond in (b"\0", b"\xff"):
            numbers = fpzip.decompress(data + beyond * (2 * nbytes + _PADDING), order="C")
            answers.write(numbers.tobytes()[:nbytes])
        answers.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
