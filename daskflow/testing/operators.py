"""What every operator from volumes to a volume must do, as a test suite to subclass.

    class TestInvert(OperatorSuite):
        dtype = "uint8"

        def apply(self, volume):
            return invert(volume)

Needs pytest and hypothesis.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskflow.geometry import BoundingBox, Zyx
from daskflow.volume import Volume

_VOXEL_SIZE = (30.0, 4.0, 4.0)
_OFFSET = (-4, 6, 0)


class OperatorSuite:
    """The promises of an operator; subclasses say what it is applied to.

    Attributes:
        dtype: of the input.
        channels: of the input; None without a channel axis.
        shape: voxels of the input (zyx), small.
        blocks: sizes of blocks (zyx) in which the result is compared with the whole.
        tolerance: what two evaluations of a float may differ by, relative and absolute.
    """

    dtype: ClassVar[str] = "uint8"
    channels: ClassVar[int | None] = None
    shape: ClassVar[Zyx] = (9, 20, 24)
    blocks: ClassVar[tuple[Zyx, ...]] = ((4, 7, 9), (9, 20, 24), (3, 8, 10))
    tolerance: ClassVar[float] = 1e-5
    _known: ClassVar[np.ndarray[Any, Any]]

    def apply(self, volume: Volume) -> Volume:
        """Return the operator's result for a volume of `dtype`, `channels` and `shape`."""
        raise NotImplementedError

    def values(self, random: np.random.Generator) -> np.ndarray[Any, Any]:
        """Return example voxels: noise over the dtype's lower range, between 0 and 1 in floats."""
        whole = self.shape if self.channels is None else (self.channels, *self.shape)
        if np.dtype(self.dtype).kind == "f":
            return random.random(whole).astype(self.dtype)
        return random.integers(0, 255, whole).astype(self.dtype)

    def _volume(self, array: np.ndarray[Any, Any]) -> Volume:
        return Volume.from_array(array, voxel_offset=_OFFSET, voxel_size=_VOXEL_SIZE).with_block(self.blocks[0])

    def _example(self) -> Volume:
        return self.apply(self._volume(self.values(np.random.default_rng(0))))

    def _whole(self) -> np.ndarray[Any, Any]:
        """Return the voxels of the example, which are computed once for the tests of a class."""
        own = type(self)
        if "_known" not in vars(own):
            own._known = self._example().read()
        return own._known

    def _same(self, one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
        if np.issubdtype(one.dtype, np.inexact):
            np.testing.assert_allclose(one, other, rtol=self.tolerance, atol=self.tolerance)
        else:
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("fill", [None, 0, 1])
    def test_result_is_as_declared_and_the_input_untouched(self, fill: int | None) -> None:
        """Noise, zeros and ones give what was declared; the input is as before."""
        array = self.values(np.random.default_rng(0))
        if fill is not None:
            array[...] = fill
        before = array.copy()
        result = self.apply(self._volume(array))
        voxels = result.read()
        assert (voxels.shape, voxels.dtype) == (result.shape, result.dtype)
        np.testing.assert_array_equal(array, before)

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data())
    def test_any_box_alone_equals_the_same_box_cut_from_the_whole(self, data: st.DataObject) -> None:
        """What is computed for a voxel does not depend on the box it is asked in."""
        result = self._example()
        start = [data.draw(st.integers(a, b - 1)) for a, b in zip(result.box.start, result.box.stop, strict=True)]
        stop = [data.draw(st.integers(a + 1, b)) for a, b in zip(start, result.box.stop, strict=True)]
        box = BoundingBox((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        self._same(result.read(box), self._whole()[(..., *box.slices(result.box))])

    def test_any_blocks_equal_the_whole(self) -> None:
        """Blocks of every size give what one block gives."""
        for block in self.blocks:
            self._same(self._example().with_block(block).data.compute(scheduler="synchronous"), self._whole())

    def test_byte_order_changes_nothing(self) -> None:
        """Voxels in either byte order give the same."""
        import dask.array as da

        array = self.values(np.random.default_rng(0))
        swapped = array.astype(array.dtype.newbyteorder())
        self._same(self.apply(self._volume(swapped)).read(), self._whole())
        lazy = Volume.from_dask(da.from_array(swapped), voxel_offset=_OFFSET, voxel_size=_VOXEL_SIZE)
        assert lazy.data.dtype.isnative
        self._same(self.apply(lazy).read(), self._whole())

    def test_nothing_is_computed_before_it_is_asked_for(self) -> None:
        """Applying the operator reads no voxel."""
        import dask
        import dask.array as da

        def fail() -> None:
            raise AssertionError("a voxel was read")

        array = self.values(np.random.default_rng(0))
        lazy = da.from_delayed(dask.delayed(fail)(), array.shape, dtype=array.dtype)
        repr(self.apply(Volume.from_dask(lazy, voxel_size=_VOXEL_SIZE)))
