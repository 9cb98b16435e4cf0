from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

fpzip = pytest.importorskip("fpzip", reason="fpzip is not installed (daskflow[codecs])")

from daskflow.stores.decoder_process import decode  # noqa: E402

SHAPE = (1, 5, 6, 7)
FLOATS = np.dtype(np.float32)


def stream(seed: int) -> tuple[bytes, bytes]:
    array = np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)
    return fpzip.compress(array, order="C"), array.tobytes()


def test_streams_are_decoded_in_several_threads() -> None:
    streams = [stream(seed) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: decode("fpzip", one[0], SHAPE, FLOATS).tobytes(), streams))
    assert found == [numbers for _, numbers in streams]


def test_a_stream_that_breaks_the_decoder_is_an_error_and_the_next_is_decoded() -> None:
    whole, numbers = stream(0)
    for length in range(24, len(whole) - 4, 40):
        with pytest.raises(ValueError, match=r"breaks down|cut short"):
            decode("fpzip", whole[:length], SHAPE, FLOATS)
        assert decode("fpzip", whole, SHAPE, FLOATS).tobytes() == numbers


def test_a_process_that_was_forked_off_and_its_parent_both_decode() -> None:
    code = (
        "import os, numpy as np, fpzip\n"
        "from daskflow.stores.decoder_process import decode\n"
        "a = np.arange(60, dtype='f4').reshape(1, 3, 4, 5)\n"
        "found = lambda b: decode('fpzip', fpzip.compress(b), a.shape, a.dtype)\n"
        "found(a)\n"
        "child = os.fork()\n"
        "ok = all((found(a + i) == a + i).all() for i in range(50))\n"
        "child or os._exit(not ok)\n"
        "print(ok, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_nothing_is_left_running_at_the_end() -> None:
    code = (
        "import os, numpy as np, fpzip\n"
        "from daskflow.stores import decoder_process\n"
        "a = np.zeros((1, 3, 4, 5), 'f4')\n"
        "decoder_process.decode('fpzip', fpzip.compress(a), a.shape, a.dtype)\n"
        "idle = decoder_process._idle(os.getpid())\n"
        "process = idle.get_nowait()\n"
        "idle.put(process)\n"
        "print(process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def labels(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed)
    return np.kron(noise.integers(0, 2 + 300 * seed, (2, 6, 6)), np.ones((4, 4, 4), int)).astype(np.uint64)[None]


@pytest.mark.parametrize("seed", [0, 1])
def test_no_flipped_bit_of_crackle_reads_as_other_labels(seed: int) -> None:
    crackle = pytest.importorskip("crackle", reason="crackle is not installed (daskflow[codecs])")
    array = labels(seed)
    whole = crackle.compress(array[0].T, parallel=1)
    np.testing.assert_array_equal(decode("crackle", whole, array.shape, array.dtype), array)
    noticed = 0
    for bit in np.random.default_rng(seed).integers(0, 8 * len(whole), 40).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = decode("crackle", bytes(damaged), array.shape, array.dtype)
        except ValueError:
            noticed += 1
        else:
            np.testing.assert_array_equal(found, array)
    assert noticed >= 10


def test_damaged_compresso_never_ends_the_process() -> None:
    compresso = pytest.importorskip("compresso", reason="compresso is not installed (daskflow[codecs])")
    array = labels(1)
    whole = compresso.compress(array[0].T)
    for byte in range(0, len(whole), len(whole) // 25):
        damaged = bytearray(whole)
        damaged[byte] ^= 0x80
        with contextlib.suppress(ValueError):
            assert decode("compresso", bytes(damaged), array.shape, array.dtype).shape == array.shape
    np.testing.assert_array_equal(decode("compresso", whole, array.shape, array.dtype), array)
