"""Compressed bytes, of which no more are ever unpacked than there can be: gzip, br and zstd."""

from __future__ import annotations

import io
from typing import Any

from daskflow.errors import CorruptChunkError, optional_module

SUFFIXES = {"gzip": ".gz", "br": ".br", "none": ""}
MOST_ALWAYS = 2**24  # bytes to which an object whose size is not known may unpack, however few are stored
MOST_RATIO = 100  # larger ones may have that many bytes for each stored one; meshes and JSON have 2 to 20


def compress(data: bytes | memoryview, compression: str) -> bytes:
    """Return `data` compressed by gzip (ISA-L, level 1, no time stamp) or br."""
    if compression == "gzip":
        from isal import igzip_lib

        return bytes(igzip_lib.compress(data, 1, igzip_lib.COMP_GZIP, igzip_lib.MEM_LEVEL_LARGE))
    return bytes(_brotli().compress(data, quality=4))


def decompress(data: bytes, suffix: str, name: str, most: int | None = None) -> bytes:
    """Return the content of an object that ends in `suffix`: .gz, .br, .zstd, or nothing for what is not compressed.

    `most` is how many bytes the content can have; None of an object of any size, see `MOST_ALWAYS` and `MOST_RATIO`.
    """
    if not suffix:
        return data
    most = max(MOST_ALWAYS, MOST_RATIO * len(data)) if most is None else most
    unpack = {".gz": _unpack_gzip, ".br": _unpack_brotli, ".zstd": _unpack_zstd}[suffix]
    try:
        content = unpack(data, most)
    except ValueError as error:
        raise CorruptChunkError(f"cannot decompress {name}: {error}") from error
    if content is None:
        raise CorruptChunkError(
            f"cannot decompress {name}: its {len(data):,} bytes hold more than the {most:,} expected at most; "
            "replace it if it is damaged, or store what it holds uncompressed"
        )
    return content


def _unpack_gzip(data: bytes, most: int) -> bytes | None:
    """Return the content, None if it has more than `most` bytes; so do the functions below."""
    from isal import igzip_lib

    unpacking = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP)
    try:
        content = bytes(unpacking.decompress(data, most + 1))
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # declared as an instance
        raise ValueError(str(error)) from error
    return _unpack_members(data, most) if unpacking.unused_data else _whole(content, most, complete=unpacking.eof)


def _unpack_members(data: bytes, most: int) -> bytes | None:
    """Return the content of gzip of several members, as `cat` joins them."""
    from isal import igzip, igzip_lib

    try:
        with igzip.IGzipFile(fileobj=io.BytesIO(data)) as file:  # type: ignore[no-untyped-call]
            content = bytes(file.read(most + 1))
    except (OSError, EOFError, igzip_lib.IsalError) as error:  # type: ignore[misc]  # declared as an instance
        raise ValueError(str(error)) from error
    return _whole(content, most, complete=True)


def _unpack_brotli(data: bytes, most: int) -> bytes | None:
    brotli = _brotli()
    unpacking = brotli.Decompressor()
    try:
        content = bytes(unpacking.process(data, output_buffer_limit=most + 1))
    except brotli.error as error:
        raise ValueError(str(error)) from error
    return _whole(content, most, complete=unpacking.is_finished())


def _unpack_zstd(data: bytes, most: int) -> bytes | None:
    import numpy as np
    from numcodecs import Zstd

    width = (data[4] >> 5 & 1, 2, 4, 8)[data[4] >> 6] if len(data) > 4 else 0
    if not width:
        raise ValueError("it does not state its size")
    start = 6 - (data[4] >> 5 & 1) + (0, 1, 2, 4)[data[4] & 3]
    size = int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    if size > most:
        return None
    try:
        return bytes(Zstd().decode(data, out=np.empty(size, np.uint8)))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _whole(content: bytes, most: int, *, complete: bool) -> bytes | None:
    if len(content) > most:
        return None
    if not complete:
        raise ValueError("it is truncated")
    return content


def _brotli() -> Any:
    return optional_module("brotli", package="brotli", extra="brotli")
