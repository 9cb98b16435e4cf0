import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskflow
from daskflow.errors import ParameterError, StoreNotFoundError
from daskflow.stores.memory import ArrayStore
from daskflow.volume import Volume


def volume(sections=5, start=0, **spec):
    image = np.random.default_rng(0).integers(0, 255, (sections, 4, 5), np.uint8)
    return daskflow.open(image, voxel_offset=(start, 0, 0), **spec)


@settings(max_examples=30)
@given(st.data())
def test_every_section_is_where_the_mapping_puts_it_in_any_blocks(data):
    sections, start = data.draw(st.integers(1, 12)), data.draw(st.integers(-9, 9))
    order = data.draw(st.permutations(range(sections)))
    source = volume(sections, start)
    mapping = {start + old: start + new for old, new in enumerate(order) if old != new or data.draw(st.booleans())}

    result = daskflow.reorder_sections(source, mapping=mapping)

    whole = source.read()
    expected = np.empty_like(whole)
    expected[list(order)] = whole
    block = data.draw(st.tuples(*[st.integers(2, 6)] * 3))
    np.testing.assert_array_equal(result.read(), expected)
    np.testing.assert_array_equal(result.with_block(block).data.compute(scheduler="synchronous"), expected)


def test_three_sections_in_a_ring(tmp_path):
    (tmp_path / "order.json").write_text(json.dumps({"1": 2, "2": 3, "3": 1}))
    result = daskflow.reorder_sections(volume(), mapping=str(tmp_path / "order.json"))
    np.testing.assert_array_equal(result.read(), volume().read()[[0, 3, 1, 2, 4]])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({1: 2}, "section 1 would become 2, and section 2 be lost"),
        ({1: 2, 3: 2}, "sections 1 and 3 would both become 2"),
        ({4: 5}, "section 5 is outside the volume, which has z 0 to 4"),
        ({-1: 0, 0: -1}, "section -1 is outside"),
        ({"a": 1}, "got the section 'a'"),
        ({1: 1.5}, "got 1: 1.5"),
        ({1: True}, "got 1: True"),
        ({1: 2, "1": 1, 2: 1}, "names section 1 twice"),
    ],
)
def test_mapping_that_loses_a_section_or_makes_no_sense_is_refused(mapping, message):
    with pytest.raises(ParameterError, match=message):
        daskflow.reorder_sections(volume(), mapping=mapping)


def test_files_that_hold_no_mapping_are_refused(tmp_path):
    file = tmp_path / "order.json"
    with pytest.raises(StoreNotFoundError):
        daskflow.reorder_sections(volume(), mapping=file)
    for text, message in (("{1: 2}", "not JSON"), ("[1, 2]", "a list")):
        file.write_text(text)
        with pytest.raises(ParameterError, match=message):
            daskflow.reorder_sections(volume(), mapping=file)


class Watched(ArrayStore):
    """Remembers how many sections were read."""

    sections = 0

    def _read(self, box):
        Watched.sections += box.shape[0]
        return super()._read(box)


def test_only_sections_that_go_into_a_block_are_read():
    source = volume(1000)
    watched = Volume.from_store(Watched(source.read(), source.spec)).with_block((10, 4, 5))
    result = daskflow.reorder_sections(watched, mapping={0: 999, 999: 0})
    Watched.sections = 0
    np.testing.assert_array_equal(result.read(result.grid[0]), source.read()[[999, *range(1, 10)]])
    assert Watched.sections == 10


@pytest.mark.parametrize("name", ["layer", "layer.zarr"])
def test_reordered_layer_is_stored_by_a_job(tmp_path, threads, name):
    source = volume(20, 3)
    source.save(tmp_path / name, chunk=(4, 4, 4)).run(threads, progress=False)
    opened = daskflow.open(tmp_path / name)
    job = daskflow.reorder_sections(opened, mapping={3: 22, 22: 5, 5: 3}).save(tmp_path / f"new-{name}")
    assert job.plan().stages[0].bytes_read == source.nbytes
    job.run(threads, progress=False)
    order = [2, 1, 19, *range(3, 19), 0]
    np.testing.assert_array_equal(daskflow.open(tmp_path / f"new-{name}").read(), source.read()[order])
