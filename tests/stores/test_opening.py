from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import daskflow
from daskflow.errors import ParameterError, StoreAccessError, StoreError, StoreNotFoundError, UnknownFormatError
from daskflow.geometry import BoundingBox, VolumeSpec
from daskflow.stores import kvstore, opening
from daskflow.stores.base import Layout, Opening, Store
from daskflow.stores.memory import ArrayStore
from daskflow.stores.opening import Format, check_file, create_store, open_level, open_store, target_format, write_file
from daskflow.stores.precomputed import PrecomputedStore

SPEC = VolumeSpec(box=BoundingBox((-1, 2, 3), (7, 10, 11)), dtype=np.dtype("uint8"), layer_type="image")


def a_layer(url: str | Path) -> Store:
    store = create_store(url, SPEC, layout=Layout(chunk=(8, 8, 8)))
    store.write(SPEC.box, np.ones(SPEC.shape, np.uint8))
    return store


class ExtraStore(ArrayStore):
    @classmethod
    def recognises(cls, url: str) -> bool:
        return kvstore.exists(f"{url}/extra.json")

    @classmethod
    def open(cls, url: str, opening: Opening) -> Store:
        return cls(np.ones(SPEC.shape, np.uint8), SPEC)


@pytest.fixture
def extra_format(monkeypatch: pytest.MonkeyPatch) -> Iterator[Format]:
    """A format declared by an installed package."""

    extra = Format("extra", f"{__name__}:ExtraStore", suffixes=(".extra",), datasets=True)

    class EntryPoint:
        def load(self) -> Format:
            return extra

    monkeypatch.setattr(opening, "entry_points", lambda group: [EntryPoint()] if group == "daskflow.stores" else [])
    opening.formats.cache_clear()
    yield extra
    opening.formats.cache_clear()


def test_the_format_is_found_by_content(tmp_path: Path) -> None:
    a_layer(tmp_path / "layer")
    store = open_store(tmp_path / "layer")
    assert isinstance(store, PrecomputedStore)
    assert store.read(SPEC.box).all()


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "precomputed://{}", "precomputed://file://{}"])
def test_a_location_may_be_written_in_several_ways(tmp_path: Path, form: str) -> None:
    a_layer(tmp_path / "layer")
    store = open_store(form.format(tmp_path / "layer"))
    assert store.url == f"file://{tmp_path}/layer"
    assert store.spec.box == SPEC.box


def test_a_relative_path_still_works_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_layer(tmp_path / "layer")
    monkeypatch.chdir(tmp_path)
    store = open_store("layer")
    monkeypatch.chdir("/")
    assert store.read(SPEC.box).all()


@pytest.mark.parametrize("name", ["nothing", "nothing.zarr", "nothing.h5", "nothing.tif", "nothing.npy"])
def test_nothing_there_is_said_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreNotFoundError, match=f"{tmp_path}/{name}"):
        open_store(tmp_path / name)


def test_nothing_there_is_said_so_where_nothing_can_be_listed() -> None:
    with pytest.raises(StoreNotFoundError, match="memory://nothing-here"):
        open_store("memory://nothing-here")


@pytest.mark.parametrize("name", ["notes.txt", "directory"])
def test_what_no_format_knows_is_named_with_the_formats(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    if name == "directory":
        place.mkdir()
    else:
        place.write_text("hello")
    with pytest.raises(UnknownFormatError, match=f"{name} is in no known format .*precomputed"):
        open_store(place)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"scales": 3}', '{"scales": [{}]}', '{"scales": [3]}', "\0"])
def test_an_info_that_is_none_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "info").write_text(text)
    with pytest.raises(StoreError, match=f"{tmp_path}/info"):
        open_store(tmp_path)


def test_two_words_for_the_format_must_agree(tmp_path: Path) -> None:
    a_layer(tmp_path / "layer")
    assert open_store(f"precomputed://{tmp_path}/layer", format="precomputed").spec.box == SPEC.box
    with pytest.raises(ParameterError, match="says precomputed, format= says npy"):
        open_store(f"precomputed://{tmp_path}/layer", format="npy")


@pytest.mark.parametrize("url", ["nosuch://x", "layer"])
def test_an_unknown_format_is_named_with_those_known(url: str) -> None:
    with pytest.raises(ParameterError, match=r"unknown format 'nosuch'; known formats: .*precomputed"):
        open_store(url, format=None if "://" in url else "nosuch")


@pytest.mark.parametrize(
    "stated",
    [{"voxel_size": (1, 1, 1)}, {"voxel_offset": (0, 0, 0)}, {"dataset": "main"}, {"axes": "zyx"}, {"time": 0}],
    ids=lambda stated: next(iter(stated)),
)
def test_what_the_layer_states_itself_cannot_be_overridden(tmp_path: Path, stated: dict[str, object]) -> None:
    a_layer(tmp_path / "layer")
    with pytest.raises(ParameterError, match=next(iter(stated))):
        open_store(tmp_path / "layer", **stated)


def test_the_meaning_can_be_stated(tmp_path: Path) -> None:
    a_layer(tmp_path / "layer")
    assert open_store(tmp_path / "layer", layer_type="probability_map").spec.layer_type == "probability_map"


def test_an_installed_package_can_add_a_format(tmp_path: Path, extra_format: Format) -> None:
    (tmp_path / "extra.json").write_text("{}")
    assert open_store(tmp_path).read(SPEC.box).all()
    assert opening.format_named("extra") is extra_format


def test_a_dataset_may_follow_the_file_name(tmp_path: Path, extra_format: Format) -> None:
    assert opening.split_dataset("/a/b.extra:volumes/raw") == ("/a/b.extra", "volumes/raw")
    assert opening.split_dataset("/a/b.extra") == ("/a/b.extra", None)
    assert opening.split_dataset("gs://a/b") == ("gs://a/b", None)


def test_a_format_that_writes_nothing_is_not_chosen_for_writing(extra_format: Format) -> None:
    with pytest.raises(UnknownFormatError, match="no format writes"):
        target_format("/a/b.extra")


def test_a_format_that_writes_nothing_is_refused_before_anything_runs(tmp_path: Path, extra_format: Format) -> None:
    for ask in (create_store, check_file):
        with pytest.raises(ParameterError, match="extra is only read"):
            ask(tmp_path / "a", SPEC, format="extra")
    with pytest.raises(ParameterError, match=r"extra is only read; write .* in one of precomputed"):
        daskflow.save(daskflow.open(np.ones((4, 4, 4), np.uint8)), tmp_path / "a", format="extra")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/a/layer", "precomputed"),
        ("s3://bucket/layer.v2", "precomputed"),
        ("/a/x.zarr", "ome-zarr"),
        ("/a/x.ZARR/", "ome-zarr"),
        ("/a/x.h5", "hdf5"),
        ("/a/x.h5:volumes/raw", "hdf5"),
        ("/a/x.tif", "tiff"),
        ("/a/x.npy", "npy"),
        ("zarr://x", "ome-zarr"),
        ("precomputed://x.zarr", "precomputed"),
    ],
)
def test_the_ending_chooses_the_format_of_a_new_layer(url: str, expected: str) -> None:
    assert target_format(url)[0].name == expected


def test_files_and_chunks_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="written whole by one writer"):
        create_store(tmp_path / "x.npy", SPEC)
    with pytest.raises(ParameterError, match="chunk by chunk"):
        write_file(tmp_path / "layer", SPEC, lambda box: np.zeros(box.shape, np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_place_without_write_permission_is_refused_before_anything_is_written(
    open_directory: Path, run_unprivileged: Callable[..., str]
) -> None:
    a_layer(open_directory / "layer")
    for path in (open_directory, *open_directory.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import sys, time; from daskflow.errors import StoreAccessError\n"
        "store = o.open_store(sys.argv[1])\n"
        "assert store.read(store.spec.box).all()\n"
        "begin = time.monotonic()\n"
        "try: store.check_writable()\n"
        "except StoreAccessError: print(time.monotonic() - begin)\n"
        "try: store.write(store.spec.box, store.read(store.spec.box))\n"
        "except StoreAccessError as error: print(error)\n"
        "try: o.create_store(sys.argv[1] + '2', store.spec)\n"
        "except StoreAccessError as error: print(error)\n"
    )
    seconds, *messages = run_unprivileged(code, str(open_directory / "layer")).splitlines()
    assert float(seconds) < 20  # nothing is tried again
    assert len(messages) == 2
    assert all(str(open_directory) in message for message in messages)


def test_a_place_without_read_permission_is_no_missing_layer(
    open_directory: Path, run_unprivileged: Callable[..., str]
) -> None:
    a_layer(open_directory / "layer")
    (open_directory / "layer" / "info").chmod(0o000)
    code = (
        "import sys; from daskflow.errors import StoreAccessError\n"
        "try: o.open_store(sys.argv[1])\n"
        "except StoreAccessError as error: print(error)\n"
    )
    assert f"{open_directory}/layer/info" in run_unprivileged(code, str(open_directory / "layer"))


def test_writing_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreAccessError):
        create_store(tmp_path / "file" / "layer", SPEC)


def test_looking_for_formats_loads_no_storage_library() -> None:
    code = (
        "import sys; from daskflow.stores import opening; assert opening.formats()\n"
        "assert not {f.store_class.partition(':')[0] for f in opening.formats()} & set(sys.modules)\n"
        "assert [f.name for f in opening.formats() if not f.store.written] == ['crackle', 'graphene']\n"
        "print([m for m in ('tensorstore', 'zarr', 'h5py', 'tifffile', 'dask', 'isal') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_fingerprint_shows_no_secret(http_files: tuple[str, Path]) -> None:
    base, directory = http_files
    a_layer(directory / "layer")
    url = f"{base.replace('//', '//user:secret@')}/layer"
    found = json.dumps(open_store(url).fingerprint())
    assert "layer" in found
    assert "secret" not in found


def test_workers_open_a_level_once_per_token_and_never_create_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{tmp_path}/layer"
    with pytest.raises(StoreNotFoundError):
        open_level(url, format="precomputed", mip=0, token="a")
    a_layer(url)
    first = open_level(url, format="precomputed", mip=0, token="a")
    assert not first.fill_missing
    with monkeypatch.context() as patch:
        patch.setattr(kvstore, "read_bytes", None)
        assert open_level(url, format="precomputed", mip=0, token="a") is first
    kvstore.delete_tree(url)
    wider = SPEC.replace(box=SPEC.box.grow(0, (0, 0, 8)), chunk_origin=None)
    create_store(url, wider, layout=Layout(chunk=(8, 8, 8)))
    assert open_level(url, format="precomputed", mip=0, token="b").spec.box == wider.box


def test_a_store_that_was_made_otherwise_has_no_other_mips_to_open(tmp_path: Path) -> None:
    a_layer(tmp_path / "layer")
    coarse = SPEC.replace(box=SPEC.box.coarsen(2), voxel_size=(2, 2, 2), chunk_origin=None)
    create_store(tmp_path / "layer", coarse, mip=1, layout=Layout(chunk=(8, 8, 8)))
    info = json.loads((tmp_path / "layer" / "info").read_text())
    with pytest.raises(StoreError, match="open it by its URL"):
        PrecomputedStore.from_info(f"file://{tmp_path}/layer", info).with_mip(1)


@pytest.mark.parametrize("ending", ["h5", "tif", "npy"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is(tmp_path: Path, ending: str) -> None:
    name = f"a.{ending}"
    check_file(tmp_path / name, SPEC)
    check_file(tmp_path / "to" / "be" / "made" / name, SPEC)
    shards = Layout(chunk=(4, 4, 4), shard=(8, 8, 8))
    with pytest.raises(ParameterError, match="astype"):
        check_file(tmp_path / name, SPEC.replace(dtype=np.dtype("complex64")))
    for spec, layout, message in (
        (SPEC, Layout(compression="jpeg"), "jpeg"),
        (SPEC, Layout(encoding="png"), "png"),
        (SPEC, Layout(quality=11), "11"),
        (SPEC, shards, "chunk" if ending != "h5" else "shard"),
        (SPEC.replace(box=BoundingBox((0, 0, 0), (0, 2, 2)), chunk_origin=None), Layout(), "nothing to write"),
    ):
        with pytest.raises(ParameterError, match=message):
            check_file(tmp_path / name, spec, layout=layout)
        with pytest.raises(ParameterError, match=message):
            write_file(tmp_path / name, spec, lambda box: np.zeros(box.shape), layout=layout)
    (tmp_path / "file").write_text("")
    (tmp_path / name).mkdir()
    for place in (f"s3://bucket/{name}", f"memory://files/{name}", tmp_path / "file" / name, tmp_path / name):
        with pytest.raises(StoreAccessError):
            check_file(place, SPEC)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", name])


def test_a_file_in_a_directory_that_may_not_be_written_is_refused(
    open_directory: Path, run_unprivileged: Callable[..., str]
) -> None:
    open_directory.chmod(0o555)
    code = (
        "import sys, numpy as np; from daskflow.errors import StoreAccessError\n"
        "from daskflow.geometry import BoundingBox, VolumeSpec; from daskflow.stores.opening import check_file\n"
        "try: check_file(sys.argv[1], VolumeSpec(BoundingBox((0, 0, 0), (2, 2, 2)), np.dtype('uint8')))\n"
        "except StoreAccessError as error: print('refused')"
    )
    assert run_unprivileged(code, f"{open_directory}/new/a.npy").strip() == "refused"


@pytest.mark.parametrize("ending", ["tif", "npy"])
def test_a_dataset_in_a_file_of_one_array_is_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ParameterError, match="hold one array"):
        check_file(tmp_path / f"a.{ending}", SPEC, dataset="main")


def test_layers_of_chunks_are_no_files_to_check(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="chunk by chunk"):
        check_file(tmp_path / "layer", SPEC)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("out/seg_", "out/seg_-1-3_0-4_5-9.h5"),
        ("out/", "out/-1-3_0-4_5-9.h5"),
        ("seg.H5", "seg.H5"),
        ("seg.hdf5:volumes/raw", "seg.hdf5:volumes/raw"),
        ("seg.tif", "seg.tif-1-3_0-4_5-9.h5"),
    ],
)
def test_a_prefix_gets_the_name_of_the_box_and_the_ending_of_the_format(url, expected):
    assert opening.file_of(url, "hdf5", BoundingBox((-1, 0, 5), (3, 4, 9))) == expected
