"""The encodings of precomputed chunks: what each one holds, its options in the ``info``, who encodes and decodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskflow.errors import DaskflowError, ParameterError
from daskflow.geometry import VolumeSpec
from daskflow.stores import codecs
from daskflow.stores.base import Array, Layout
from daskflow.stores.codecs import Codec, Scale, Shape
from daskflow.stores.refusals import refuse_cast

_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")


@dataclass(frozen=True)
class Option:
    """A number that an encoding takes.

    Attributes:
        key: its name in a scale of the ``info``.
        least: smallest value.
        most: largest value.
        default: what is written when nothing was asked; None leaves the key out, for the encoder to decide.
    """

    key: str
    least: int
    most: int
    default: int | None = None


@dataclass(frozen=True)
class Encoding:
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
        """Return the keys of a scale for the options that a layout asks.

        Raises:
            ParameterError: the encoding has no such option, or it cannot have that value.
        """
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
        """Raise unless it can hold a new level.

        Raises:
            ParameterError: it is only read, or cannot hold the dtype, the channels, or labels without loss.
            MissingDependencyError: its library is not installed.
        """
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
    Encoding("raw", codec=codecs.RAW, driven=True),
    Encoding(
        "png",
        dtypes=("uint8", "uint16"),
        channels=(1, 2, 3, 4),
        quality=Option("png_level", 0, 9),
        driven=True,
    ),
    Encoding(
        "jpeg",
        dtypes=("uint8",),
        channels=(1, 3),
        quality=Option("jpeg_quality", 0, 100),
        driven=True,
        lossless=(),
    ),
    Encoding("compressed_segmentation", dtypes=("uint32", "uint64"), driven=True),
    Encoding(
        "jxl",
        dtypes=("uint8",),
        channels=(1,),
        quality=Option("jxl_quality", 1, 100, default=codecs.DEFAULT_JXL_QUALITY),
        effort=Option("jxl_effort", 1, 10, default=codecs.DEFAULT_JXL_EFFORT),
        codec=codecs.JXL,
        lossless=(codecs.LOSSLESS_JXL_QUALITY,),
    ),
    Encoding("crackle", dtypes=_UNSIGNED, channels=(1,), codec=codecs.CRACKLE, shown=False),
    Encoding("compresso", dtypes=_UNSIGNED, channels=(1,), codec=codecs.COMPRESSO),
    Encoding(
        "fpzip",
        dtypes=("float32",),
        quality=Option("fpzip_precision", 0, 32),
        codec=codecs.FPZIP,
        lossless=(None, 0),
        shown=False,
    ),
    Encoding("zfpc", dtypes=("float32",), codec=codecs.ZFPC, shown=False),
    Encoding("kempressed", dtypes=("float32",), codec=codecs.KEMPRESSED, written=False, shown=False),
)
ENCODINGS = {encoding.name: encoding for encoding in _ALL}
WRITTEN = tuple(encoding.name for encoding in _ALL if encoding.written)
