import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.clusters.walltime import lifetime, parse_walltime
from daskflow.errors import ParameterError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("2h", 7200), ("90 min", 5400), ("1.5h", 5400), ("1 day", 86400), ("45s", 45)),
        *(("1:30:00", 5400), ("48:00:00", 172800), ("1-12", 129600), ("1-12:30", 131400), ("1-00:00:10", 86410)),
        *(("30", 1800), (30, 1800), ("01:30", 90)),
    ],
)
def test_times_are_read_as_people_and_slurm_write_them(text, seconds):
    assert parse_walltime(text, plain=60, pair=60) == seconds


def test_two_numbers_are_hours_and_minutes_for_lsf():
    assert parse_walltime("01:30", plain=60, pair=3600) == 5400


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "1:2:3:4", "2 weeks", "0h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ParameterError, match="must be a time like '2h'"):
        parse_walltime(text, plain=60, pair=60)


@given(st.integers(60, 10**6))
def test_workers_retire_before_their_job_is_killed_and_not_all_at_once(walltime):
    after, stagger = lifetime(walltime)
    assert 0 < walltime / 2 < after - stagger < after + stagger < walltime
    assert stagger > 0
