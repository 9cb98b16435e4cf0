"""Files of a directory of objects, under each of CloudVolume's names."""

from __future__ import annotations

import pytest

from daskflow.errors import CorruptChunkError, ParameterError, StoreError, StoreNotFoundError
from daskflow.stores import kvstore
from daskflow.stores.objects.files import gzip, names_below, read_file, require_file, sized_names, write_file, writing


@pytest.mark.parametrize(("compression", "name"), [("none", "5"), ("gzip", "5.gz"), ("br", "5.br")])
def test_a_file_is_read_whatever_its_suffix(tmp_path, compression, name):
    write_file(str(tmp_path), "5", b"content", compression=compression)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert read_file(str(tmp_path), "5") == b"content"
    assert list(names_below(str(tmp_path))) == ["5"]


def test_writing_under_one_name_removes_the_others(tmp_path):
    for compression in ("br", "gzip", "none"):
        write_file(str(tmp_path), "5", compression.encode(), compression=compression)
        assert len(list(tmp_path.iterdir())) == 1
        assert read_file(str(tmp_path), "5") == compression.encode()


def test_a_bucket_has_plain_names_and_gzip_is_known_by_its_bytes():
    write_file("memory://object-files", "5", b"content", compression="gzip")
    assert kvstore.read_bytes("memory://object-files/5") == b"content"
    kvstore.write_bytes("memory://object-files/6", gzip(b"zipped"))
    assert read_file("memory://object-files", "6") == b"zipped"
    assert sorted(names_below("memory://object-files")) == ["5", "6"]


def test_an_absent_file_is_none_or_an_error(tmp_path):
    assert read_file(str(tmp_path), "5") is None
    with pytest.raises(StoreNotFoundError, match="no 5"):
        require_file(str(tmp_path), "5")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "5.gz").write_bytes(gzip(b"content" * 100)[:-9])
    with pytest.raises(CorruptChunkError, match=r"5\.gz"):
        read_file(str(tmp_path), "5")


@pytest.mark.parametrize("name", ["../5", "a/../../5", "..", "a b"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(ParameterError):
        read_file(str(tmp_path), name)


def test_links_directories_and_half_written_files_are_not_listed(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "5").write_bytes(b"12345")
    (tmp_path / ".6.partial").write_bytes(b"half")
    (tmp_path / "7").symlink_to(tmp_path / "5")
    assert list(sized_names(str(tmp_path))) == [("5", 5)]
    assert list(sized_names(str(tmp_path / "nowhere"))) == []


def test_a_full_disk_is_an_error_of_the_store_and_leaves_nothing(tmp_path):
    def fill():
        with writing(f"{tmp_path}/5") as file:
            file.write(b"x")
            raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []
