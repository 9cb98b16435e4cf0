"""Block functions on arrays that, as CuPy's, never become ndarrays by themselves and mix with none."""

import sys
from types import ModuleType

import numpy as np
import pytest
from scipy import ndimage

from daskflow.operators.image.gaussian_filter import blur
from daskflow.operators.image.normalize_intensity import to_unit_range
from daskflow.operators.segmentation.threshold import above
from daskflow.operators.stores.downsample.kernels import Carried, Downsampling

ARRAY = np.random.default_rng(0).integers(0, 256, (7, 12, 13), np.uint8)


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """Stands in for cupy.ndarray, with what that and ndarray both have."""

    __module__ = "cupy"

    def __init__(self, array):
        self.host = array

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        assert method == "__call__"
        return on_device(ufunc, *inputs, **options, **({"out": out} if out else {}))

    def __array_function__(self, function, _, args, options):
        return on_device(function, *args, **options)

    def __getattr__(self, name):
        if name in ("dtype", "shape", "ndim", "size", "itemsize"):
            return getattr(self.host, name)
        if name in ("astype", "reshape", "view", "max"):
            return lambda *args, **options: on_device(getattr(self.host, name), *args, **options)
        raise AttributeError(name)

    def __getitem__(self, at):
        return DeviceArray(self.host[at])

    def __setitem__(self, at, value):
        self.host[at] = unpacked(value)


def unpacked(value):
    if isinstance(value, tuple | list):
        return type(value)(map(unpacked, value))
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    return value.host if isinstance(value, DeviceArray) else value


def on_device(function, *args, **options):
    result = function(*map(unpacked, args), **{name: unpacked(value) for name, value in options.items()})
    return DeviceArray(result) if isinstance(result, np.ndarray) else result


@pytest.fixture(autouse=True)
def _filters(monkeypatch):
    """Stand in for cupyx.scipy.ndimage."""
    filters = ModuleType("cupyx.scipy.ndimage")
    filters.gaussian_filter1d = lambda *args, **options: on_device(ndimage.gaussian_filter1d, *args, **options)
    for name in ("cupyx", "cupyx.scipy"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cupyx.scipy.ndimage", filters)


def mean(array):
    how = Downsampling((1, 2, 2), "mean")
    levels, last = how.run(Carried(array), 2, dtype=array.dtype)
    return [*levels, last.data]


@pytest.mark.parametrize(
    ("function", "array"),
    [
        (lambda a: blur(a, (0.5, 1, 1)), ARRAY),
        (lambda a: blur(a, (0, 1, 1)), ARRAY.astype(np.float32)),
        (lambda a: above(a, 100), ARRAY),
        (to_unit_range, ARRAY),
        (mean, ARRAY),
        (mean, ARRAY.astype(np.float32)),
    ],
    ids=["gaussian", "gaussian of floats", "threshold", "normalize", "mean", "mean of floats"],
)
def test_they_stay_on_the_gpu_and_give_what_the_cpu_gives(function, array):
    wanted, found = function(array), function(DeviceArray(array))
    if not isinstance(wanted, list):
        wanted, found = [wanted], [found]
    for one, other in zip(wanted, found, strict=True):
        assert isinstance(other, DeviceArray)
        np.testing.assert_array_equal(other.host, one, strict=True)


def test_a_mixture_with_ndarrays_is_refused_as_by_cupy():
    with pytest.raises(TypeError, match="Unsupported"):
        DeviceArray(ARRAY) + ARRAY
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(DeviceArray(ARRAY))
