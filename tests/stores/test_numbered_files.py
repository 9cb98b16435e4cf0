from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.stores.tiff import with_skipped


@given(
    first=st.integers(0, 20),
    step=st.integers(1, 12),
    count=st.integers(4, 30),
    width=st.integers(1, 5),
    gone=st.data(),
)
def test_a_file_taken_out_of_a_sequence_is_found_again(first, step, count, width, gone):
    whole = [Path(f"/a/s2_z{first + i * step:0{width}d}_c1.tif") for i in range(count)]
    taken = gone.draw(st.integers(1, count - 2))
    assert with_skipped(whole) == whole
    assert with_skipped(whole[:taken] + whole[taken + 1 :]) == whole


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["z1.tif"],
        ["z1.tif", "z7.tif"],
        ["a1.tif", "b3.tif", "b4.tif"],
        ["z1_1.tif", "z2_3.tif", "z3_4.tif"],
        ["z.tif", "z2.tif", "z4.tif"],
        ["z1.tif", "z3.tif", "z4.tiff"],
        ["20230101.tif", "20230102.tif", "20240607.tif"],
    ],
)
def test_names_that_are_no_sequence_lack_nothing(names):
    files = [Path("/a") / name for name in names]
    assert with_skipped(files) == files


@pytest.mark.parametrize(("axis", "said"), [("c{c}", "3 x 2"), ("{c}", "3 x 2"), ("c{z}", "")])
def test_names_that_count_two_numbers_are_told_of(axis, said, caplog):
    files = [Path("/a") / f"z{z}_{axis.format(c=c, z=2 * z + c)}.tif" for z in range(3) for c in range(2)]
    assert with_skipped(files) == files
    assert (f"6 files count {said}" in caplog.text) if said else not caplog.text
