import pickle
import shutil

import cc3d
import numpy as np
import pytest

from daskflow.errors import CorruptChunkError, MissingChunkError, StoreAccessError
from daskflow.geometry import BlockGrid
from daskflow.operators.segmentation.connected_components import connected_components
from daskflow.operators.segmentation.connected_components import scratch as module
from daskflow.operators.segmentation.connected_components.blocks import Foreground
from daskflow.operators.segmentation.connected_components.scratch import LabelledStore, Labelling
from daskflow.operators.segmentation.connected_components.stages import LabelForeground, labelling_stages
from daskflow.volume import Volume
from daskflow.volume.stage import Scope, Scopes, run_here


@pytest.fixture
def labelled(tmp_path):
    """Voxels, the volume of their components after its stages ran, and the directory of the scratch data."""
    voxels = np.random.default_rng(0).integers(0, 2, (8, 8, 8)).astype(np.uint8)
    voxels[:4, :4, :4] = 0
    volume = connected_components(Volume.from_array(voxels).with_block(4))
    scopes = Scopes(str(tmp_path))
    run_here(volume.expression.stages, scopes)
    return voxels, volume.expression.bind(scopes), tmp_path / "components" / "records" / "components"


def test_what_the_stages_left_is_read_again_and_again(labelled):
    voxels, expression, _ = labelled

    for _ in range(2):
        assert np.array_equal(
            expression.evaluate([expression.outputs[0].spec.box])[0], cc3d.connected_components(voxels, connectivity=6)
        )


def test_a_block_without_foreground_leaves_no_labels(labelled):
    _, _, scratch = labelled

    assert sorted(int(path.name) for path in (scratch / "labels" / "0").iterdir()) == list(range(1, 8))


def test_lost_labels_are_an_error_and_never_background(labelled):
    _, expression, scratch = labelled
    (scratch / "labels" / "0" / "3").unlink()

    with pytest.raises(MissingChunkError, match="labels/0/3"):
        expression.evaluate([expression.outputs[0].spec.box])


def test_damaged_labels_are_an_error(labelled):
    _, expression, scratch = labelled
    data = bytearray((scratch / "labels" / "0" / "3").read_bytes())
    data[-1] ^= 255
    (scratch / "labels" / "0" / "3").write_bytes(data)

    with pytest.raises(CorruptChunkError, match="labels/0/3"):
        expression.evaluate([expression.outputs[0].spec.box])


def test_scratch_data_are_not_written_by_others(labelled):
    _, expression, _ = labelled
    store = expression.outputs[0].store

    with pytest.raises(StoreAccessError):
        store.check_writable()
    with pytest.raises(StoreAccessError):
        store.write(store.spec.box, store.read(store.spec.box))


def test_other_voxels_labelled_at_the_same_place_get_their_own_numbers(tmp_path):
    few, many = (np.random.default_rng(1).random((8, 8, 8)) < density for density in (0.02, 0.3))
    for voxels in (few, many):
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        volume = Volume.from_array(voxels.astype(np.uint8))
        labelling = Labelling(BlockGrid(volume.box, (4, 4, 4)), 6, Scope("same"))
        scopes = Scopes(str(tmp_path / "scratch"))
        blocks = LabelForeground(labelling, Foreground())
        run_here(labelling_stages(blocks, volume.expression, np.dtype(np.uint32)), scopes)
        store = LabelledStore(labelling.bind(scopes), volume.spec.replace(dtype=np.dtype(np.uint32)))

        assert np.array_equal(
            store.read(volume.box), cc3d.connected_components(voxels.astype(np.uint8), connectivity=6)
        )


def test_numbers_are_read_once_for_neighbouring_blocks_and_do_not_travel(labelled, monkeypatch):
    _, expression, _ = labelled
    store = expression.outputs[0].store
    read, groups = Labelling.read_numbers, []
    monkeypatch.setattr(Labelling, "read_numbers", lambda self, group: groups.append(group) or read(self, group))

    for _ in range(2):
        store.read(store.spec.box)
    assert groups == [0]

    pickle.loads(pickle.dumps(store)).read(store.spec.box)
    assert groups == [0, 0]


def test_only_the_numbers_of_a_few_groups_are_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_KEPT", 2)
    voxels = np.random.default_rng(2).integers(0, 2, (4, 4, 40)).astype(np.uint8)
    volume = connected_components(Volume.from_array(voxels).with_block(2))
    (output,) = volume.expression.resolved(str(tmp_path)).outputs

    assert np.array_equal(output.store.read(volume.box), cc3d.connected_components(voxels, connectivity=6))
    assert len(output.store._numbers) == 2


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_no_record_of_the_busiest_voxels_is_taken_for_damage(connectivity, block):
    side = 4 * block + 1  # a group of blocks, and one behind it along each axis
    z, y, x = np.indices((side, side, side)) % 2
    voxels = (1 + z * 4 + y * 2 + x).astype(np.uint8) if block > 1 else np.ones((side, side, side), np.uint8)
    volume = connected_components(Volume.from_array(voxels).with_block(block), connectivity=connectivity)

    assert np.array_equal(volume.read(), cc3d.connected_components(voxels, connectivity=connectivity))
