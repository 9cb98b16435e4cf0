import pytest

from daskflow.errors import StoreAccessError
from daskflow.stores import kvstore
from daskflow.stores.kvstore import rehearsing


@pytest.mark.parametrize("place", ["file", "memory", "s3", "gcs"])
def test_what_is_rehearsed_is_read_inside_and_gone_afterwards(place, request, tmp_path):
    buckets = {"file": str(tmp_path), "memory": "memory://rehearsal"}
    url = f"{buckets.get(place) or request.getfixturevalue(place)}/rehearsed"
    kvstore.write_bytes(f"{url}/old", b"before")
    with rehearsing():
        kvstore.write_bytes(f"{url}/new", b"new")
        kvstore.write_bytes(f"{url}/old", b"after")
        kvstore.check_writable(url)
        assert (kvstore.read_bytes(f"{url}/new"), kvstore.read_bytes(f"{url}/old")) == (b"new", b"after")
        assert kvstore.exists(f"{url}/new")
        assert not kvstore.exists(f"{url}/none")
    assert kvstore.list_names(url) == ["old"]
    assert kvstore.read_bytes(f"{url}/old") == b"before"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with rehearsing(), pytest.raises(StoreAccessError, match="cannot be written"):
        kvstore.check_writable(str(tmp_path / "deep" / "below"))
