"""Small objects at any URL: a path, file://, s3://, gs://, http(s)://, memory://.

Everything here that asks a location raises StoreAccessError when it refuses, and StoreError when it cannot be reached.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from daskflow.errors import CorruptChunkError, ParameterError, StoreAccessError, StoreError, StoreNotFoundError
from daskflow.redaction import redact as redact
from daskflow.stores.answers import anonymous_s3, translated, use_secrets, wait

_transaction: ContextVar[Any] = ContextVar("transaction", default=None)
SCHEMES = ("file", "s3", "gs", "http", "https", "memory")
_NAME = re.compile(r"[A-Za-z0-9._:-]+")
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_SLASHED = re.compile(rf"({'|'.join(SCHEMES)}):/(?=[^/])")
_RETRIES = {"max_retries": 3, "initial_delay": "1s", "max_delay": "8s"}
_SILENCE = {  # a server that sends nothing for so long is asked again; with the retries that is less than a minute
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "12",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "12",
}
_log = logging.getLogger(__name__)
_context_lock = threading.Lock()


def transaction() -> Any:
    """Return the tensorstore transaction that takes the writes of small objects, None outside of `rehearsing`."""
    return _transaction.get()


@contextmanager
def rehearsing() -> Iterator[None]:
    """Store nothing inside the block; what is written through `kvstore` can be read there until the block ends."""
    import tensorstore as ts

    rehearsed = ts.Transaction()
    token = _transaction.set(rehearsed)
    try:
        yield
    finally:
        _transaction.reset(token)
        rehearsed.abort()


def normalise(url: str | os.PathLike[str]) -> str:
    """Return the URL with its scheme and without a trailing slash; a path becomes an absolute ``file://`` URL."""
    text = os.fspath(url)
    match = _URL.fullmatch(text)
    if match is None:
        if slashed := _SLASHED.match(text):
            raise ParameterError(f"{text!r} has one slash: write {slashed[1]}://{text[slashed.end() :]}")
        if not text or "\0" in text:
            raise ParameterError(f"{text!r} is not a path or URL")
        return "file://" + os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111 (no symlinks resolved)
    scheme, rest = match.groups()
    if scheme not in SCHEMES:
        raise ParameterError(f"{redact(text)!r} has the unknown scheme {scheme!r}; known schemes: {', '.join(SCHEMES)}")
    if scheme == "file":
        return "file://" + os.path.abspath(os.path.expanduser(rest))  # noqa: PTH100, PTH111
    rest = rest.rstrip("/")
    if not rest or rest.startswith("/"):
        raise ParameterError(f"{redact(text)!r} names no bucket, host or object after {scheme}://")
    return f"{scheme}://{rest}"


def resolved(url: str) -> str:
    """Return the normalised URL; links on a local disk, also on the way to what is not there yet, are followed."""
    path = local_path(url)
    return normalise(url) if path is None else f"file://{os.path.realpath(path)}"


def is_url(text: str) -> bool:
    """Return whether a text is a URL that `normalise` takes and leaves as it is."""
    try:
        return normalise(text) == text
    except ParameterError:
        return False


def local_path(url: str) -> Path | None:
    """Return the path of a ``file://`` URL or plain path, None for any other URL."""
    url = normalise(url)
    return Path(url.removeprefix("file://")) if url.startswith("file://") else None


def check_name(name: str) -> str:
    """Return a name that came from data if it is safe as one component of a location."""
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise ParameterError(f"{name!r} is not a safe name; use letters, digits and . _ : - only")
    return name


def plain_number(value: float) -> str:
    """Return a number as text that may be part of a name: its digits, without an exponent and its sign."""
    return np.format_float_positional(value, trim="-")


def join(url: str, *parts: str) -> str:
    """Return the URL of an object below `url`; components of `parts`, between slashes, are checked by `check_name`."""
    return "/".join([normalise(url), *(check_name(name) for part in parts for name in part.split("/"))])


def kvstore_spec(url: str) -> dict[str, Any]:
    """Return tensorstore's JSON spec for the key-value store rooted at a URL, as a directory.

    S3 takes endpoint, region and anonymity from the environment, as boto3 and cloud-volume do: AWS_ENDPOINT_URL_S3
    or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, AWS_NO_SIGN_REQUEST. GCS reads TENSORSTORE_GCS_HTTP_URL.
    """
    spec, key = _split(normalise(url))
    if spec["driver"] == "http":
        return {"driver": "http", "base_url": f"{spec['base_url']}{key}/"}
    return {**spec, "path": spec.get("path", "") + (f"{key}/" if key else "")}


def context() -> Any:
    """Return the one tensorstore context of this process: what `memory://` holds, thread pools, retries."""
    with _context_lock:
        return _new_context()


@functools.cache
def _new_context() -> Any:
    for name, value in _SILENCE.items():
        os.environ.setdefault(name, value)
    import tensorstore as ts

    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "file_io_sync": False,
            "s3_request_retries": _RETRIES,
            "gcs_request_retries": _RETRIES,
            "http_request_retries": _RETRIES,
        }
    )


def _split(url: str) -> tuple[dict[str, Any], str]:
    """Return the spec of the store that a normalised URL lives in, and its key there."""
    scheme, _, rest = url.partition("://")
    if scheme == "file":
        return {"driver": "file", "path": "/"}, rest.lstrip("/")
    if scheme == "memory":
        return {"driver": "memory"}, rest
    host, _, key = rest.partition("/")
    if scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{scheme}://{host}/"}, key
    use_secrets(scheme)
    if scheme == "gs":
        return {"driver": "gcs", "bucket": host}, key
    return {"driver": "s3", "bucket": host, **_s3_options()}, key


def _s3_options() -> dict[str, Any]:
    env = os.environ
    endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")
    region = env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
    options: dict[str, Any] = {}
    if endpoint:
        options["endpoint"] = endpoint
    if region:
        options["aws_region"] = region
    if anonymous_s3():
        options["aws_credentials"] = {"type": "anonymous"}
    elif env.get("AWS_ACCESS_KEY_ID"):
        options["aws_credentials"] = {"type": "environment"}
    return options


def opened(spec: dict[str, Any]) -> Any:
    """Return the tensorstore key-value store of a JSON spec, opened once per process while it is in use."""
    return _opened(json.dumps(spec, sort_keys=True))


@functools.lru_cache(maxsize=64)
def _opened(spec: str) -> Any:
    import tensorstore as ts

    return ts.KvStore.open(json.loads(spec), context=context()).result()


@contextmanager
def _asking(url: str, verb: str, *, chunks: bool = False) -> Iterator[tuple[Any, str]]:
    """Give the store that a URL lives in and its key there; errors are translated."""
    with translated(url, verb, chunks=chunks):
        spec, key = _split(normalise(url))
        store = opened(spec)
        yield store if transaction() is None else store.with_transaction(transaction()), key


def refuse_http(url: str) -> None:
    """Raise when a URL cannot be written because it is http."""
    if normalise(url).startswith(("http://", "https://")):
        raise StoreAccessError(f"cannot write {redact(url)}: http is read-only; use file, s3, gs or memory")


def read_bytes(url: str) -> bytes | None:
    """Return the object at `url`, or None when there is none."""
    with _asking(url, "read") as (store, key):
        result = wait(store.read(key), url)
    return bytes(result.value) if result.state == "value" else None


def read_range(url: str, start: int, stop: int) -> bytes | None:
    """Return bytes `start` to `stop` of the object at `url`, and no others; None when there is no object.

    Raises:
        CorruptChunkError: the object is shorter than that, or there can be no such bytes.
        StoreAccessError: the location refuses.
        StoreError: a server that sends whole objects only.
    """
    if not 0 <= start <= stop < 2**63:
        raise CorruptChunkError(f"{redact(url)} cannot have bytes {start} to {stop}; what names them is damaged")
    with _asking(url, "read", chunks=True) as (store, key):
        try:
            result = wait(store.read(key, byte_range=slice(start, stop)), url)
        except ValueError as error:
            if "ignored by server" in str(error):
                raise StoreError(f"{redact(url)} is on a server without byte ranges, which shards need") from error
            raise
    return bytes(result.value) if result.state == "value" else None


def generation(url: str) -> bytes | None:
    """Return what the store says of the version of the object at `url`, an ETag or a number; None without an object."""
    with _asking(url, "read") as (store, key):
        result = wait(store.read(key), url)
    return bytes(result.stamp.generation) if result.state == "value" else None


def write_bytes(url: str, data: bytes) -> None:
    """Store an object atomically: a reader sees the old bytes or the new ones, never a part."""
    refuse_http(url)
    with _asking(url, "write") as (store, key):
        wait(store.write(key, data), url)


def write_if_absent(url: str, data: bytes) -> bool:
    """Store an object unless there is one, and return whether it is ours; see `replace`."""
    return replace(url, None, data)


def replace(url: str, old: bytes | None, new: bytes | None) -> bool:
    """Store bytes in the place of others, and return whether they are there; None stands for no object.

    Of several that put different bytes in the place of the same ones one gets True, see `is_conditional`; what is
    deleted may have been replaced a moment before. The answer to a write may be lost, so that asking again finds the
    object in its way: one of the same bytes is ours.
    """
    refuse_http(url)
    with _asking(url, "write") as (store, key):
        found = wait(store.read(key), url)
        if _value(found) != old:
            return _value(found) == new
        version = found.stamp.generation  # zeros where the server names none
        condition = {"if_equal": version} if new is not None and any(version) else {}  # few know it for deletions
        if wait(store.write(key, new, **condition), url).generation:
            return True
        return _value(wait(store.read(key), url)) == new


def _value(found: Any) -> bytes | None:
    return bytes(found.value) if found.state == "value" else None


def is_conditional(url: str) -> bool:
    """Return whether a store refuses to write below `url` on a condition that does not hold, by trying so."""
    probe = join(url, f".daskflow-probe-{uuid.uuid4().hex}")
    refuse_http(url)
    with _asking(probe, "write") as (store, key):
        absent = wait(store.read(key), url).stamp.generation
        first = wait(store.write(key, b"first"), url).generation
        wait(store.write(key, b"second"), url)
        written = [wait(store.write(key, b"third", if_equal=one), url).generation for one in (absent, first)]
        wait(store.write(key, None), url)
    return not any(written)


def exists(url: str) -> bool:
    """Return whether there is an object (not a directory) at `url`."""
    path = local_path(url)
    if path is not None and (transaction() is None or path.is_file()):
        return path.is_file()
    return read_bytes(url) is not None


def list_names(url: str, prefix: str = "") -> list[str]:
    """Return the names, relative to `url`, of all objects below it that begin with `prefix`, sorted."""
    if normalise(url).startswith(("http://", "https://")):
        raise StoreAccessError(f"cannot list {redact(url)}: http has no listings")
    with _asking(url, "list") as (store, key):
        keys = _keys_below(store, f"{key}/{prefix}" if key else prefix, url)
        if not keys and url.startswith("gs://"):  # tensorstore takes a listing that is refused for an empty one
            wait(store.read(f"{key}/{uuid.uuid4().hex}"), url)
    names = (name.decode()[len(key) + 1 if key else 0 :] for name in keys)
    return sorted(name for name in names if not name.endswith(".__lock"))


def delete(url: str) -> None:
    """Remove the object at `url`; nothing happens when there is none."""
    refuse_http(url)
    with _asking(url, "delete") as (store, key):
        wait(store.write(key, None), url)


def delete_tree(url: str) -> None:
    """Remove every object below `url`; nothing happens when there is none."""
    refuse_http(url)
    path = local_path(url)
    if path is not None:
        if path == Path(path.anchor):
            raise ParameterError(f"will not delete all of {url}")
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreAccessError(f"cannot delete {path}: {error}") from error
        return
    if not _split(normalise(url))[1]:
        raise ParameterError(f"will not delete all of {url}")
    with _asking(url, "delete") as (store, key):
        for deletion in [store.write(name, None) for name in _keys_below(store, f"{key}/", url)]:
            wait(deletion, url)


def drop_empty(url: str) -> None:
    """Remove a local directory in which nothing is left."""
    path = local_path(url)
    if path is not None:
        with suppress(OSError):
            path.rmdir()


def check_writable(url: str) -> None:
    """Raise unless objects can be written below `url`, by writing and removing a probe.

    A directory keeps its time, by which changed data are noticed. While rehearsing, its permissions are looked at.
    """
    probe = join(url, f".daskflow-probe-{uuid.uuid4().hex}")
    directory = local_path(url)
    if directory is not None and transaction() is not None:
        above = next(parent for parent in (directory, *directory.parents) if parent.exists())
        if not os.access(above, os.W_OK):
            raise StoreAccessError(f"cannot write below {redact(url)}: {above} cannot be written")
        return
    before = directory.stat() if directory is not None and directory.is_dir() else None
    try:
        write_bytes(probe, b"probe")
        delete(probe)
        if directory is not None and before is not None:
            with suppress(OSError):
                os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    except StoreAccessError:
        raise
    except StoreError as error:
        raise StoreAccessError(f"cannot write below {redact(url)}: {error}") from error


def _keys_below(store: Any, prefix: str, url: str) -> list[bytes]:
    """Return the keys that begin with `prefix`, whatever else a server lists that knows no ranges."""
    import tensorstore as ts

    first = prefix.encode()
    past = first[:-1] + bytes([first[-1] + 1]) if first else b""
    return [key for key in wait(store.list(ts.KvStore.KeyRange(first, past)), url) if key.startswith(first)]


def missing(url: str) -> StoreNotFoundError:
    """Build the error for a location where nothing is stored."""
    return StoreNotFoundError(f"nothing is stored at {redact(url)}")
