import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskflow.errors import CorruptChunkError, ParameterError
from daskflow.stores.objects.intmap import places, read_intmap, write_intmap_in_parts

KEYS = st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=40).map(sorted)


def write_intmap(url, keys, values):
    write_intmap_in_parts(url, len(keys), [(np.array(keys, np.uint64), np.array(values, np.uint64))])


@given(KEYS, st.integers(1, 7))
def test_what_is_written_in_parts_is_read_again(tmp_path_factory, keys, step):
    url = str(tmp_path_factory.mktemp("map") / "counts.im")
    keys = np.array(keys, np.uint64)
    values = np.arange(len(keys), dtype=np.uint64) * 3
    parts = [(keys[at : at + step], values[at : at + step]) for at in range(0, len(keys), step)]

    write_intmap_in_parts(url, len(keys), parts)

    found = read_intmap(url)
    assert found is not None
    assert np.array_equal(found[0], keys)
    assert np.array_equal(found[1], values)


@given(st.integers(1, 300))
def test_places_are_those_of_a_search_tree(count):
    tree = np.empty(count, np.int64)
    tree[places(np.arange(count), count)] = np.arange(count)

    for rank in range(count):
        at = 1
        while tree[at - 1] != rank:
            at = 2 * at + int(tree[at - 1] < rank)
            assert at <= count


@given(KEYS)
def test_mapbuffer_reads_every_key(tmp_path_factory, keys):
    mapbuffer = pytest.importorskip("mapbuffer")
    path = tmp_path_factory.mktemp("map") / "counts.im"
    write_intmap(str(path), keys, np.arange(len(keys)))

    theirs = mapbuffer.IntMap(path.read_bytes())

    assert {int(k): int(v) for k, v in theirs.items()} == {key: at for at, key in enumerate(keys)}
    taken = [at for at, key in enumerate(keys) if key < 2**63]  # it indexes by signed numbers
    assert [int(theirs[keys[at]]) for at in taken] == taken
    assert theirs.tobytes() == mapbuffer.IntMap({key: at for at, key in enumerate(keys)}).tobytes()


@pytest.mark.parametrize("ending", [".zstd", ".gz", ".br"])
def test_compressed_files_are_read_and_make_way(tmp_path, ending):
    mapbuffer = pytest.importorskip("mapbuffer")
    compression = pytest.importorskip("cloudfiles.compression")
    url = tmp_path / "counts.im"
    name = {".zstd": "zstd", ".gz": "gzip", ".br": "br"}[ending]
    (tmp_path / f"counts.im{ending}").write_bytes(
        compression.compress(mapbuffer.IntMap({5: 6, 1: 2}).tobytes(), method=name)
    )

    keys, values = read_intmap(str(url))
    assert (keys.tolist(), values.tolist()) == ([1, 5], [2, 6])

    write_intmap(str(url), [7], [8])
    assert [path.name for path in tmp_path.iterdir()] == ["counts.im"]


def test_in_memory_urls():
    write_intmap("memory://intmap/a.im", [1, 2, 3], [4, 5, 6])
    assert read_intmap("memory://intmap/a.im")[1].tolist() == [4, 5, 6]
    assert read_intmap("memory://intmap/b.im") is None


@pytest.mark.parametrize("damage", [b"", b"intm", b"nonsense of some length"])
def test_damage_is_named(tmp_path, damage):
    path = tmp_path / "counts.im"
    path.write_bytes(damage)
    with pytest.raises(CorruptChunkError, match=r"counts\.im"):
        read_intmap(str(path))


def test_keys_that_do_not_rise_are_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ParameterError, match="rise"):
        write_intmap(str(tmp_path / "a.im"), [3, 1], [1, 1])
    with pytest.raises(ParameterError, match="announced"):
        write_intmap_in_parts(str(tmp_path / "a.im"), 2, [(np.array([1], np.uint64), np.array([1], np.uint64))])
    assert list(tmp_path.iterdir()) == []
