"""Decoders in a process of their own, because bytes that are damaged take down the process that decodes them."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import math
import os
import queue
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_PADDING = 1024
_BROKEN = "its decoder breaks down over it"

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
_Process = subprocess.Popen[bytes]


@functools.cache
def _idle(owner: int) -> queue.SimpleQueue[_Process]:  # noqa: ARG001
    """Return the processes that are free, of the process with that id: one that was forked off must not share them."""
    return queue.SimpleQueue()


def decode(codec: str, data: bytes, shape: Shape, dtype: np.dtype[Any], first: int | None = None) -> Array:
    """Return the voxels (czyx) that some bytes hold, which cannot be written to; of fpzip the header was checked.

    Of crackle, sections from a `first` one on are decoded where that is given.
    """
    try:
        process = _idle(os.getpid()).get_nowait()
    except queue.Empty:
        process = _start()
    request = {"codec": codec, "bytes": len(data), "shape": shape, "dtype": dtype.name, "first": first}
    nbytes = math.prod(shape) * dtype.itemsize
    reason, voxels = _asked(process, request, data, nbytes)
    if reason == _BROKEN:  # perhaps over what it was given before
        _end(process)
        process = _start()
        reason, voxels = _asked(process, request, data, nbytes)
    if reason == _BROKEN:
        _end(process)
    else:
        _idle(os.getpid()).put(process)
    if reason:
        raise ValueError(reason)
    return np.frombuffer(voxels, dtype).reshape(shape)


def _asked(process: _Process, request: dict[str, Any], data: bytes, nbytes: int) -> tuple[str, bytes]:
    """Return why bytes cannot be decoded, or else an empty text and the voxels."""
    assert process.stdin is not None
    assert process.stdout is not None
    voxels = b""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.write(data)
        process.stdin.flush()
        answer = process.stdout.readline()
        if answer.strip() and (reason := json.loads(answer)):
            return str(reason), b""
        voxels = process.stdout.read(nbytes)
    return ("" if len(voxels) == nbytes else _BROKEN), voxels


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
    while line := requests.readline():
        request = json.loads(line)
        data, shape, dtype = requests.read(request["bytes"]), tuple(request["shape"]), np.dtype(request["dtype"])
        try:
            part = {} if request["first"] is None else {"first": request["first"]}
            voxels = _DECODERS[request["codec"]](data, shape, dtype, **part)
        except Exception as error:  # noqa: BLE001 (libraries raise anything)
            answers.write(json.dumps(str(error) or repr(error)).encode() + b"\n")
        else:
            answers.write(b'""\n')
            answers.write(np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data)
        answers.flush()


def _decode_fpzip(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Decode twice, with other bytes after the end: only what was cut short can become other numbers by them."""
    import fpzip

    nbytes = math.prod(shape) * dtype.itemsize
    found = [
        fpzip.decompress(data + beyond * (2 * nbytes + _PADDING), order="C").tobytes()[:nbytes]
        for beyond in (b"\0", b"\xff")
    ]
    if found[0] != found[1] or len(found[0]) != nbytes:
        raise ValueError("it is cut short")
    return np.frombuffer(found[0], dtype)


def _decode_compresso(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    import compresso

    header = compresso.header(data)
    _check_header([header[name] for name in ("sz", "sy", "sx")], header["data_width"], shape, dtype)
    labels: Array = compresso.decompress(data).T
    return labels


def _decode_crackle(data: bytes, shape: Shape, dtype: np.dtype[Any], first: int | None = None) -> Array:
    """Decode, and check the sums that its format has and its library leaves out: of labels, and of components."""
    from crackle import codec

    header = codec.header(data)
    sections = slice(0, header.sz) if first is None else slice(first, first + shape[1])
    _check_header([sections.stop - sections.start, header.sy, header.sx], header.data_width, shape, dtype)
    checksums = 4 * (header.sz + 1) if header.format_version > 0 else 0
    wanted = int(codec.grid_index(data)[-1]) + checksums
    if len(data) != wanted:
        raise ValueError(f"holds {len(data)} bytes instead of {wanted}")
    if checksums and codec.labels_crc(data) != codec.crc32c(bytes(codec.raw_labels(data))):
        raise ValueError("the checksum of its labels does not agree")
    labels: Array = codec.decompress_range(data, sections.start, sections.stop, parallel=1).T
    if checksums:
        _check_components(labels, codec.crack_crcs(data)[sections], codec.crc32c)
    return labels


def _check_components(labels: Array, sums: Array, crc32c: Callable[[bytes], int]) -> None:
    """Raise unless the components of each section, by faces and counted from 0 in C order, have a checksum."""
    import cc3d
    import fastremap

    for z, section in enumerate(labels):
        numbers, _ = fastremap.renumber(section, preserve_zero=False)
        components = cc3d.connected_components(np.ascontiguousarray(numbers), connectivity=4)
        if crc32c((components.astype("<u4") - 1).tobytes()) != sums[z]:
            raise ValueError(f"the checksum of its section {z} does not agree")


def _check_header(zyx: list[int], width: int, shape: Shape, dtype: np.dtype[Any]) -> None:
    if (1, *zyx) != shape or width != dtype.itemsize:
        raise ValueError(f"holds {zyx} voxels zyx of {width} bytes instead of {shape} czyx of {dtype}")


_DECODERS: dict[str, Callable[..., Array]] = {
    "fpzip": _decode_fpzip,
    "compresso": _decode_compresso,
    "crackle": _decode_crackle,
}

if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
