import dataclasses
import json
import subprocess
import sys
import threading
import time

import psutil
import pytest
from blockfiles import WriteFiles, grid

from daskflow.errors import LockedJobError
from daskflow.jobs import Job
from daskflow.jobs.lock import Holder, Lease, holder_of
from daskflow.stores import kvstore
from daskflow.volume.stage import Stage


@pytest.fixture
def url(tmp_path):
    return kvstore.join(str(tmp_path), "lock")


def put(url, holder):
    kvstore.write_bytes(url, json.dumps(dataclasses.asdict(holder)).encode())


def test_lease_is_held_and_given_back(url):
    with Lease(url):
        assert holder_of(url).alive
    assert holder_of(url) is None


def test_second_driver_is_refused_with_the_first_named(url):
    with Lease(url), pytest.raises(LockedJobError, match=r"is being run by .* process"), Lease(url):
        pass


def test_lease_of_a_dead_process_of_this_machine_is_taken_at_once(url):
    script = f"from daskflow.jobs.lock import Lease; import os; Lease({url!r}).__enter__(); os._exit(9)"
    subprocess.run([sys.executable, "-c", script], check=False)
    assert holder_of(url).alive is False
    with Lease(url, interval=1e6):  # it would be waited for three intervals
        assert holder_of(url).alive


def test_process_number_used_again_is_not_the_holder(url):
    put(url, dataclasses.replace(Holder.here(), started=Holder.here().started - 1000))
    with Lease(url):
        assert holder_of(url).beat == 0


def test_holder_lives_on_when_the_clock_is_set(url, monkeypatch):
    for step in (-7200, 7200):
        with Lease(url):
            now = time.time
            monkeypatch.setattr(time, "time", lambda now=now, step=step: now() + step)
            monkeypatch.setattr(psutil, "boot_time", lambda step=step: step)
            assert holder_of(url).alive
            with pytest.raises(LockedJobError), Lease(url):
                pass


ELSEWHERE = [{"host": "elsewhere"}, {"pid": 2**22 + 1, "place": "a container of the same name"}]


@pytest.mark.parametrize("where", ELSEWHERE)
def test_lease_of_another_machine_or_container_is_taken_when_it_stands_still(url, where):
    other = dataclasses.replace(Holder.here(), **where)
    put(url, other)
    began = time.monotonic()
    with Lease(url, interval=0.05):
        assert holder_of(url).key != other.key
    assert time.monotonic() - began >= 0.15


@pytest.mark.parametrize("where", ELSEWHERE)
def test_lease_of_another_machine_or_container_that_is_renewed_is_refused(url, where):
    holder = dataclasses.replace(Holder.here(), **where)
    put(url, holder)
    end = threading.Event()

    def renew():
        beat = 0
        while not end.wait(0.02):
            beat += 1
            put(url, dataclasses.replace(holder, beat=beat))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(LockedJobError, match=f"on {holder.host}"), Lease(url, interval=2):
            pass
    finally:
        end.set()
        thread.join()


def test_holder_renews_and_notices_that_it_lost_the_lease(url):
    with Lease(url, interval=0.02) as lease:
        until(lambda: holder_of(url).beat >= 2)
        assert lease.lost is None
        put(url, dataclasses.replace(Holder.here(), host="thief"))
        until(lambda: lease.lost is not None)
        assert "thief" in lease.lost
    assert holder_of(url).host == "thief"


@dataclasses.dataclass(frozen=True)
class Robbed(WriteFiles):
    """Writes files until another driver has the lease of the job."""

    lock: str = ""

    def compute(self, box, inputs):
        put(self.lock, dataclasses.replace(Holder.here(), host="thief"))
        time.sleep(0.05)
        return super().compute(box, inputs)


def test_driver_that_lost_its_lease_stops(tmp_path, monkeypatch, threads):
    monkeypatch.setitem(Lease.__init__.__kwdefaults__, "interval", 0.02)
    home = str(tmp_path / "job.daskflow")
    stage = Stage("robbed", grid(1000), Robbed(tmp_path / "out", lock=kvstore.join(home, "lock")))
    with pytest.raises(LockedJobError, match=r"taken over by .*thief"):
        Job((stage,), home, name="robbed").run(threads)
    assert len(list((tmp_path / "out").glob("*.out"))) < 1000


def test_damaged_lock_is_taken_over(url):
    kvstore.write_bytes(url, b"torn")
    with Lease(url, interval=0.02):
        assert holder_of(url).alive


def test_directory_that_holds_the_lease_alone_goes_with_it(tmp_path):
    with Lease(kvstore.join(str(tmp_path), "job", "lock")):
        assert (tmp_path / "job").is_dir()
    assert not (tmp_path / "job").exists()


def test_directory_in_which_anything_was_written_stays(tmp_path):
    with Lease(kvstore.join(str(tmp_path), "job", "lock")):
        (tmp_path / "job" / "job.json").touch()
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["job.json"]


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
