from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

fpzip = pytest.importorskip("fpzip", reason="fpzip is not installed (daskflow[codecs])")

from daskflow.stores.fpzip_process import decompress  # noqa: E402


def stream(seed: int) -> tuple[bytes, bytes]:
    array = np.random.default_rng(seed).normal(size=(1, 5, 6, 7)).astype(np.float32)
    return fpzip.compress(array, order="C"), array.tobytes()


def test_streams_are_decoded_in_several_threads() -> None:
    streams = [stream(seed) for seed in range(20)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: decompress(one[0], len(one[1])), streams))
    assert found == [numbers for _, numbers in streams]


def test_a_stream_that_breaks_the_decoder_is_an_error_and_the_next_is_decoded() -> None:
    whole, numbers = stream(0)
    for length in range(24, len(whole) - 4, 40):
        with pytest.raises(ValueError, match=r"breaks down|cut short"):
            decompress(whole[:length], len(numbers))
        assert decompress(whole, len(numbers)) == numbers


def test_a_process_that_was_forked_off_and_its_parent_both_decode() -> None:
    code = (
        "import os, numpy as np, fpzip\n"
        "from daskflow.stores.fpzip_process import decompress\n"
        "a = np.arange(60, dtype='f4').reshape(1, 3, 4, 5)\n"
        "decompress(fpzip.compress(a), 240)\n"
        "child = os.fork()\n"
        "ok = all(decompress(fpzip.compress(a + i), 240) == (a + i).tobytes() for i in range(50))\n"
        "child or os._exit(not ok)\n"
        "print(ok, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "0"], done.stderr


def test_nothing_is_left_running_at_the_end() -> None:
    code = (
        "import os, numpy as np, fpzip\n"
        "from daskflow.stores import fpzip_process\n"
        "fpzip_process.decompress(fpzip.compress(np.zeros((1, 3, 4, 5), 'f4')), 240)\n"
        "idle = fpzip_process._idle(os.getpid())\n"
        "process = idle.get_nowait()\n"
        "idle.put(process)\n"
        "print(process.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
