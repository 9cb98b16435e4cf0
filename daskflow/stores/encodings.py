"""The encodings of precomputed chunks: what each holds, its options in the ``info``, and chunks to bytes and back.

The libraries are those that CloudVolume uses, so that the bytes mean the same to both. A chunk is C-ordered czyx, which
is the same memory as the Fortran-ordered xyzc that precomputed stores. Decoders do not trust their libraries: fpzip,
zfp, crackle and compresso read past the end of what is cut short, return wrong values or end the process, over damaged
bytes.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from daskflow.errors import DaskflowError, MissingDependencyError, ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.stores.base import Array, Layout
from daskflow.stores.decoder_process import decode
from daskflow.stores.refusals import refuse_cast

Shape = tuple[int, ...]
Scale = Mapping[str, Any]
DEFAULT_JXL_QUALITY = 85  # as CloudVolume's
LOSSLESS_JXL_QUALITY = 100
DEFAULT_JXL_EFFORT = 3  # as igneous's
_PADDING = 1024
_FPZIP_MAGIC = b"fpy"
_FPZIP_SIZES = slice(9, 23)
_ZFPC_HEADER = struct.Struct("<4sBB4IB")
_ZFPC_FORTRAN_LIMIT = 0x80
_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")


class Codec(NamedTuple):
    """How one encoding turns chunks into bytes and back.

    Attributes:
        encode: (C-ordered czyx array, scale of the ``info``) -> bytes, or those of the array itself.
        decode: (bytes, shape czyx, dtype) -> array of that shape and dtype; may raise anything for damaged bytes.
        packages: what both need: names to import, by names to install.
        keys: further keys of the scale that `encode` reads.
    """

    encode: Callable[[Array, Scale], bytes | memoryview]
    decode: Callable[[bytes, Shape, np.dtype[Any]], Array]
    packages: Mapping[str, str]
    keys: tuple[str, ...] = ()

    def require(self) -> None:
        """Raise unless the packages are installed."""
        for package, module in self.packages.items():
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise MissingDependencyError.of(package, "codecs") from error


def _encode_raw(array: Array, scale: Scale) -> memoryview:  # noqa: ARG001
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def _decode_raw(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise ValueError(f"holds {len(data)} bytes instead of {wanted}")
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)


def _encode_jxl(array: Array, scale: Scale) -> bytes:
    import imagecodecs

    quality = scale.get("jxl_quality") or DEFAULT_JXL_QUALITY
    encoded = imagecodecs.jpegxl_encode(
        array.reshape(-1, array.shape[-1]),
        photometric="GRAY",
        level=quality,
        lossless=quality >= LOSSLESS_JXL_QUALITY,
        effort=scale.get("jxl_effort") or DEFAULT_JXL_EFFORT,
        decodingspeed=scale.get("jxl_decodingspeed") or 0,
        numthreads=1,
    )
    return bytes(encoded)


def _decode_jxl(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:  # noqa: ARG001
    import imagecodecs

    image: Array = imagecodecs.jpegxl_decode(data, numthreads=1)
    interleaved = shape[0] > 1 and image.shape == (math.prod(shape[1:3]), shape[3], shape[0])
    return (np.moveaxis(image, -1, 0) if interleaved else image).reshape(shape)


def _encode_crackle(array: Array, scale: Scale) -> bytes:  # noqa: ARG001
    import crackle

    return bytes(crackle.compress(array[0].T, parallel=1))


def _encode_compresso(array: Array, scale: Scale) -> bytes:  # noqa: ARG001
    import compresso

    return bytes(compresso.compress(array[0].T))


def _encode_fpzip(array: Array, scale: Scale) -> bytes:
    import fpzip

    return bytes(fpzip.compress(array.T, precision=scale.get("fpzip_precision") or 0, order="F"))


def _decode_fpzip(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Decode what has the right header; fpzip believes any size that it reads there."""
    wanted = _fpzip_sizes(shape, dtype.name)
    if data[: len(_FPZIP_MAGIC)] != _FPZIP_MAGIC or data[_FPZIP_SIZES] != wanted:
        raise ValueError(f"its header is not one of fpzip for {dtype} {shape} czyx")
    return decode("fpzip", data, shape, dtype)


@functools.lru_cache(maxsize=64)
def _fpzip_sizes(shape: Shape, dtype: str) -> bytes:
    """Return the bytes that stand for a size in fpzip's header, which is entropy-coded, at whatever precision."""
    import fpzip

    return bytes(fpzip.compress(np.zeros(shape, dtype).T, order="F"))[_FPZIP_SIZES]


def _decode_kempressed(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Undo what CloudVolume does to what it gives to fpzip: it adds 2 and swaps z and channels."""
    c, z, y, x = shape
    voxels: Array = np.swapaxes(_decode_fpzip(data, (z, c, y, x), dtype), 0, 1) - dtype.type(2)
    return voxels


def _refuse_kempressed(array: Array, scale: Scale) -> bytes:
    raise NotImplementedError("kempressed is only read")


def _encode_zfpc(array: Array, scale: Scale) -> bytes:
    import zfpc

    options = {name: scale[f"zfpc_{name}"] for name in ("rate", "precision", "tolerance") if f"zfpc_{name}" in scale}
    correlated = list(scale.get("zfpc_correlated_dims") or [True] * 4)
    return bytes(zfpc.compress(array.T, correlated_dims=correlated, **options))


def _decode_zfpc(data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Take the container apart here: zfpc reads past its end, and turns integers into float32."""
    import zfpy

    magic, _, kind, *xyzc, correlated = _ZFPC_HEADER.unpack_from(data)
    if magic != b"zfpc" or tuple(max(n, 1) for n in xyzc) != shape[::-1]:
        raise ValueError(f"holds {xyzc} xyzc by {magic!r}")
    free = [n if n > 1 and not correlated >> axis & 1 else 1 for axis, n in enumerate(xyzc)]
    begin, *sizes = struct.unpack_from(f"<{1 + math.prod(free)}Q", data, _ZFPC_HEADER.size)
    if begin + sum(sizes) != len(data):
        raise ValueError(f"holds {len(data)} bytes instead of {begin + sum(sizes)}")
    out = np.empty(shape, dtype)
    for size, place in zip(sizes, itertools.product(*map(range, reversed(free))), strict=True):
        padding = bytes(2 * out.nbytes // len(sizes) + _PADDING)
        piece = zfpy.decompress_numpy(data[begin : begin + size] + padding)
        if piece.dtype != dtype:
            raise ValueError(f"holds {piece.dtype} instead of {dtype}")
        where = tuple(slice(i, i + 1) if n > 1 else slice(None) for i, n in zip(place, reversed(free), strict=True))
        out[where] = (piece if kind & _ZFPC_FORTRAN_LIMIT else piece.T).reshape(out[where].shape)
        begin += size
    return out


RAW = Codec(_encode_raw, _decode_raw, {})
JXL = Codec(_encode_jxl, _decode_jxl, {"imagecodecs": "imagecodecs"}, ("jxl_decodingspeed",))
CRACKLE = Codec(_encode_crackle, functools.partial(decode, "crackle"), {"crackle-codec": "crackle"})
COMPRESSO = Codec(_encode_compresso, functools.partial(decode, "compresso"), {"compresso": "compresso"})
FPZIP = Codec(_encode_fpzip, _decode_fpzip, {"fpzip": "fpzip"})
KEMPRESSED = Codec(_refuse_kempressed, _decode_kempressed, {"fpzip": "fpzip"})
ZFPC = Codec(
    _encode_zfpc,
    _decode_zfpc,
    {"zfpc": "zfpc", "zfpy": "zfpy"},
    ("zfpc_rate", "zfpc_precision", "zfpc_tolerance", "zfpc_correlated_dims"),
)


class Option(NamedTuple):
    """A number that an encoding takes, under a key of a scale; without a default the encoder decides, unless asked."""

    key: str
    least: int
    most: int
    default: int | None = None


class Encoding(NamedTuple):
    """One encoding of precomputed chunks.

    Attributes:
        name: in the ``info``.
        dtypes: what it holds; empty means all that precomputed holds.
        channels: how many it holds; empty means any number.
        quality: the option that `Layout.quality` sets.
        effort: the option that `Layout.effort` sets.
        codec: what encodes and decodes chunk by chunk; None where only tensorstore does.
        driven: whether tensorstore's precomputed driver knows it.
        lossless: the qualities at which no value is lost; None for all of them.
        written: whether daskflow writes it; else it is only read.
        shown: whether Neuroglancer decodes it.
        packed: whether gzip makes its chunks smaller, so that new shards hold them so unless something else is asked.
    """

    name: str
    dtypes: tuple[str, ...] = ()
    channels: tuple[int, ...] = ()
    quality: Option | None = None
    effort: Option | None = None
    codec: Codec | None = None
    driven: bool = False
    lossless: tuple[int | None, ...] | None = None
    written: bool = True
    shown: bool = True
    packed: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of a scale that change how chunks are encoded."""
        options = tuple(option.key for option in (self.quality, self.effort) if option is not None)
        return options + (self.codec.keys if self.codec is not None else ())

    @property
    def defaults(self) -> dict[str, int]:
        """The keys of a new scale for options that were not asked."""
        options = (option for option in (self.quality, self.effort) if option is not None)
        return {option.key: option.default for option in options if option.default is not None}

    def asked(self, layout: Layout) -> dict[str, int]:
        """Return the keys of a scale for the options that a layout asks."""
        found: dict[str, int] = {}
        for name in ("quality", "effort"):
            option, value = getattr(self, name), getattr(layout, name)
            if value is None:
                continue
            if option is None:
                having = ", ".join(other.name for other in ENCODINGS.values() if getattr(other, name) is not None)
                raise ParameterError(f"{name} {value} with encoding {self.name}, which has none; {having} have one")
            if not option.least <= value <= option.most:
                raise ParameterError(f"{name} {value} of encoding {self.name} must be {option.least} to {option.most}")
            found[option.key] = value
        return found

    def layout(self, scale: Scale) -> Layout:
        """Return the options that a scale has, as a layout asks them."""
        quality, effort = (None if option is None else scale.get(option.key) for option in (self.quality, self.effort))
        return Layout(encoding=self.name, quality=quality, effort=effort)

    def lossy(self, quality: int | None) -> bool:
        """Return whether values are lost at a quality, or where none is stated."""
        return self.lossless is not None and quality not in self.lossless

    def check(self, spec: VolumeSpec, quality: int | None) -> None:
        """Raise unless it can hold a new level."""
        if not self.written:
            raise ParameterError(f"encoding {self.name} is only read; use fpzip")
        if self.dtypes:
            refuse_cast(spec.dtype, self.dtypes, f"encoding {self.name}")
        if self.channels and (spec.channels or 1) not in self.channels:
            allowed = ", ".join(map(str, self.channels))
            raise ParameterError(f"encoding {self.name} holds {allowed} channels, not {spec.channels}; use raw")
        if spec.layer_type == "segmentation" and self.lossy(quality):
            raise ParameterError(
                f"encoding {self.name} at quality {quality} changes values, which labels cannot bear; "
                "use compressed_segmentation, crackle or raw"
            )
        if self.codec is not None:
            self.codec.require()

    def encode(self, array: Array, scale: Scale) -> bytes | memoryview:
        """Return the bytes of one chunk, (c)zyx."""
        assert self.codec is not None
        czyx = np.ascontiguousarray(array).reshape((-1, *array.shape[-3:]))
        return self.codec.encode(czyx, scale)

    def decode(self, data: bytes, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return the chunk of a shape (c)zyx that some bytes hold.

        Raises:
            ValueError: they are damaged, or hold another shape or dtype.
            MissingDependencyError: the library is not installed.
        """
        assert self.codec is not None
        czyx = (1,) * (4 - len(shape)) + shape
        self.codec.require()
        try:
            array = self.codec.decode(data, czyx, dtype)
        except (DaskflowError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(str(error) or repr(error)) from error
        if array.shape != czyx or array.dtype != dtype:
            raise ValueError(f"holds {array.dtype} {array.shape} czyx instead of {dtype} {czyx}")
        return array.reshape(shape)


_ALL = (
    Encoding("raw", codec=RAW, driven=True, packed=True),
    Encoding("png", dtypes=("uint8", "uint16"), channels=(1, 2, 3, 4), quality=Option("png_level", 0, 9), driven=True),
    Encoding(
        "jpeg", dtypes=("uint8",), channels=(1, 3), quality=Option("jpeg_quality", 0, 100), driven=True, lossless=()
    ),
    Encoding("compressed_segmentation", dtypes=("uint32", "uint64"), driven=True, packed=True),
    Encoding(
        "jxl",
        dtypes=("uint8",),
        channels=(1,),
        quality=Option("jxl_quality", 1, 100, default=DEFAULT_JXL_QUALITY),
        effort=Option("jxl_effort", 1, 10, default=DEFAULT_JXL_EFFORT),
        codec=JXL,
        lossless=(LOSSLESS_JXL_QUALITY,),
    ),
    Encoding("crackle", dtypes=_UNSIGNED, channels=(1,), codec=CRACKLE, shown=False, packed=True),
    Encoding("compresso", dtypes=_UNSIGNED, channels=(1,), codec=COMPRESSO, packed=True),
    Encoding(
        "fpzip",
        dtypes=("float32",),
        quality=Option("fpzip_precision", 0, 32),
        codec=FPZIP,
        lossless=(None, 0),
        shown=False,
    ),
    Encoding("zfpc", dtypes=("float32",), codec=ZFPC, shown=False),
    Encoding("kempressed", dtypes=("float32",), codec=KEMPRESSED, written=False, shown=False),
)
ENCODINGS = {encoding.name: encoding for encoding in _ALL}
WRITTEN = tuple(encoding.name for encoding in _ALL if encoding.written)
