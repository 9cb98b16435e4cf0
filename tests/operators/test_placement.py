"""Meshes and skeletons of every level lie where the object is."""

import numpy as np
import pytest

from daskflow.errors import ParameterError
from daskflow.operators.objects.mesh import mesh
from daskflow.operators.objects.skeletonize import skeletonize
from daskflow.operators.stores.downsample import downsample
from daskflow.operators.stores.open import open as open_volume
from daskflow.operators.stores.save import save
from daskflow.stores.objects.layer_objects import Meshes, Skeletons
from daskflow.volume import Volume

pytest.importorskip("zmesh")
pytest.importorskip("numba")
pytest.importorskip("DracoPy")
pytest.importorskip("kimimaro")

SIZE = np.array((30, 8, 16))  # nm, zyx
LOW, HIGH = np.array((6, 8, 4)), np.array((18, 16, 52))  # of a rod, counted from the volume's first voxel


def layer(folder, offset, factor):
    labels = np.zeros((24, 24, 60), np.uint32)
    labels[tuple(slice(a, b) for a, b in zip(LOW, HIGH, strict=True))] = 7
    volume = Volume.from_array(labels, voxel_offset=offset, voxel_size=tuple(SIZE), layer_type="segmentation")
    save(volume, folder / "layer").run(progress=False)
    downsample(open_volume(folder / "layer"), levels=2, factor=factor).run(progress=False)
    return str(folder / "layer")


@pytest.mark.parametrize(
    ("offset", "factor"),
    [
        ((0, 0, 0), (1, 2, 2)),
        ((3, 5, 7), (2, 2, 2)),
        ((-3, -5, 1), (2, 2, 2)),
        ((1, 1, 2), (3, 2, 4)),
        ((2**24 + 1, 2**31 + 3, -(2**33) - 1), (2, 2, 2)),
    ],
)
@pytest.mark.parametrize("format", ["sharded", "multires", "legacy"])
def test_objects_of_every_level_lie_where_the_object_is(tmp_path, offset, factor, format):  # noqa: A002
    url = layer(tmp_path, offset, factor)
    if format == "legacy" and max(map(abs, offset)) > 2**21:
        with pytest.raises(ParameterError, match="float32"):
            mesh(open_volume(url), format=format)
        return
    low, high = (((np.array(offset) + edge) * SIZE)[::-1] for edge in (LOW, HIGH))
    for mip in range(3):
        volume = open_volume(url, mip=mip)
        coarse = np.array(volume.voxel_size[::-1])
        mesh(volume, max_error=0, format=format, spatial_index=mip == 1).run(progress=False)
        traced = "sharded" if format == "sharded" else "files"
        skeletonize(volume, dust=0, scale=1, const=0, format=traced).run(progress=False)
        vertices = Meshes(url).read(7).vertices
        np.testing.assert_array_less(np.abs(vertices.min(axis=0) - low), coarse / 2 + 0.01)
        np.testing.assert_array_less(np.abs(vertices.max(axis=0) - high), coarse / 2 + 0.01)
        skeleton = Skeletons(url).read(7).vertices
        inside = (vertices.min(axis=0) - 0.01, vertices.max(axis=0) + 0.01)
        assert (skeleton >= inside[0]).all()
        assert (skeleton <= inside[1]).all()
        assert np.abs(np.median(skeleton, axis=0) - (low + high) / 2)[1:].max() <= coarse[1:].max()


def test_names_of_directories_have_no_exponents(tmp_path):
    labels = np.zeros((8, 8, 8), np.uint32)
    labels[2:6, 2:6, 2:6] = 1
    for size, name in ((1e6, "mesh_mip_0_err_1000000"), (1e-7, "mesh_mip_0_err_0.0000001")):
        volume = Volume.from_array(labels, voxel_size=size, layer_type="segmentation")
        save(volume, tmp_path / name).run(progress=False)
        mesh(open_volume(tmp_path / name)).run(progress=False)
        assert (tmp_path / name / name / "info").is_file()
