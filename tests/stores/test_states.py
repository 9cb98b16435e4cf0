from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from daskflow.stores import kvstore
from daskflow.stores.states import directory_state, object_state, provenance_state


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_an_object_written_again_has_another_stamp(tmp_path: Path, kind: str) -> None:
    url = f"{tmp_path}/info" if kind == "disk" else "memory://test-stamps/info"
    assert object_state(url) is None
    kvstore.write_bytes(url, b"{}")
    before = object_state(url)
    assert before is not None
    assert object_state(url) == before
    time.sleep(0.02)
    kvstore.write_bytes(url, b"{}")
    assert object_state(url) != before
    kvstore.delete(url)


def test_provenance_of_another_mip_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "provenance"
    assert provenance_state(str(path), 0) is None

    def entry(mip: int, date: str) -> dict[str, object]:
        return {"method": {"mip": mip}, "date": date}

    stamps = []
    for entries in ([entry(0, "a")], [entry(0, "a"), entry(1, "b")], [entry(0, "a"), entry(0, "b")]):
        path.write_text(json.dumps({"processing": entries}))
        stamps.append((provenance_state(str(path), 0), provenance_state(str(path), 1)))
    first, beside, again = stamps
    assert first[0] == beside[0] != again[0]
    assert first[1] != beside[1]


@pytest.mark.parametrize("text", ["no JSON", "[]", '{"processing": [3]}', '{"processing": [{"method": "igneous"}]}'])
def test_provenance_of_others_counts_whole(tmp_path: Path, text: str) -> None:
    path = tmp_path / "provenance"
    path.write_text(text)
    before = provenance_state(str(path), 0)
    assert before is not None
    path.write_text(
        text + " " if text == "no JSON" else text.replace("3", "4").replace("igneous", "x").replace("[]", "[1]")
    )
    assert provenance_state(str(path), 0) != before


def test_provenance_that_a_server_refuses_is_none(http_files: tuple[str, Path]) -> None:
    base, _ = http_files
    assert provenance_state(f"{base}/nothing", 0) is None
    assert provenance_state(f"{base}/forbidden/provenance", 0) is None


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_file_renamed_into_the_deepest_directories_is_noticed(tmp_path: Path, depth: int) -> None:
    leaf = tmp_path.joinpath(*"cab"[:depth])
    leaf.mkdir(parents=True, exist_ok=True)
    (leaf / "chunk").write_text("x")
    before = directory_state(tmp_path, depth)
    assert before == directory_state(tmp_path, depth)
    time.sleep(0.02)
    (leaf / "new").write_text("y")
    (leaf / "new").rename(leaf / "chunk")
    assert directory_state(tmp_path, depth) != before


def test_many_directories_are_sampled_over_the_whole_range(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}").mkdir()
    before = directory_state(tmp_path, 1)
    time.sleep(0.02)
    for number in range(150, 200):
        (tmp_path / f"{number:03}" / "chunk").write_text("x")
    assert directory_state(tmp_path, 1) != before


def test_a_directory_that_is_not_there_has_no_stamp(tmp_path: Path) -> None:
    assert directory_state(tmp_path / "nothing") is None
    assert directory_state(tmp_path / "nothing", 2) is None
