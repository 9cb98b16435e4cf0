"""What servers answer: errors of tensorstore as daskflow's, futures that take long, and which credentials were used."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daskflow.errors import (
    CorruptChunkError,
    CredentialsError,
    DaskflowError,
    MissingChunkError,
    StoreAccessError,
    StoreError,
    StoreNotFoundError,
)
from daskflow.redaction import redact


def anonymous_s3() -> bool:
    """Return whether the environment says that requests to S3 are not signed."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")


def credential_source(url: str) -> str:
    """Return where the credentials for a normalised URL come from, for people to read."""
    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        return _s3()
    if scheme == "gs":
        return _gcs()
    if "?" in rest:
        return "what stands in the URL after the question mark"
    return "user and password in the URL" if "@" in rest.split("/")[0] else "none, as http URLs are read without"


def _s3() -> str:
    env = os.environ
    if anonymous_s3():
        return "none (anonymous), as AWS_NO_SIGN_REQUEST says"
    if env.get("AWS_ACCESS_KEY_ID"):
        names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", *["AWS_SESSION_TOKEN"] * ("AWS_SESSION_TOKEN" in env)]
        return f"{', '.join(names)} in the environment"
    named = (env.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), env.get("AWS_CONFIG_FILE", "~/.aws/config"))
    files = [str(path) for path in (Path(name).expanduser() for name in named) if path.is_file()]
    if files:
        return f"profile {env.get('AWS_PROFILE', 'default')!r} in {' and '.join(files)}"
    return "the role of this machine, or none (anonymous): neither AWS_ACCESS_KEY_ID nor a file in ~/.aws is there"


def _gcs() -> str:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return f"{named}, which GOOGLE_APPLICATION_CREDENTIALS names"
    default = Path(os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud"), "application_default_credentials.json")
    if default.expanduser().is_file():
        return str(default.expanduser())
    return (
        "the service account of this machine, or none (anonymous): GOOGLE_APPLICATION_CREDENTIALS is not set,"
        " and `gcloud auth application-default login` was not run"
    )


_SAID_EVERY = 20.0
_log = logging.getLogger(__name__)

_Codes = tuple[tuple[str, type[StoreError]], ...]
_ACCESS_CODES: _Codes = (
    ("PERMISSION_DENIED", StoreAccessError),
    ("UNAUTHENTICATED", StoreAccessError),
    ("Read-only file system", StoreAccessError),
    ("Not a directory", StoreAccessError),
)
_SERVER = re.compile(r"(?:s3|gs|https?)://\S*")
_REFUSED = re.compile(
    r"PERMISSION_DENIED|UNAUTHENTICATED|HTTP code 40[137]|http_response_code='40[137]'|AccessDenied|ExpiredToken"
    r"|InvalidToken|TokenRefreshRequired|RequestExpired|invalid_grant"
)
_OBJECT_CODES: _Codes = (("NOT_FOUND", StoreNotFoundError),)
_CHUNK_CODES: _Codes = (
    ("NOT_FOUND", MissingChunkError),
    ("DATA_LOSS", CorruptChunkError),
    ("INVALID_ARGUMENT", CorruptChunkError),
    ("FAILED_PRECONDITION", CorruptChunkError),
    ("OUT_OF_RANGE", CorruptChunkError),
)


def plain_message(error: Exception) -> str:
    """Return what tensorstore said, on one line and without the spec that it appends."""
    text = re.sub(r"\s*\[tensorstore_spec='.*", "", str(error), flags=re.DOTALL)
    return redact(" ".join(text.split()))


@contextmanager
def translated(url: str, verb: str, *, chunks: bool = True) -> Iterator[None]:
    """Turn tensorstore's errors inside the block into daskflow's.

    Args:
        url: what was accessed, for the message.
        verb: what was tried, e.g. "read".
        chunks: whether voxels were accessed, so that what is absent or damaged is a chunk.

    Raises:
        StoreAccessError: the location refuses (CredentialsError when it is on a server).
        MissingChunkError: a chunk was never written (StoreNotFoundError when not `chunks`).
        CorruptChunkError: a chunk cannot be decoded.
        StoreError: anything else.
    """
    try:
        yield
    except (ValueError, NotImplementedError, IndexError, KeyError) as error:
        if isinstance(error, DaskflowError):
            raise
        text = plain_message(error)
        known = None if redact(str(error)) != str(error) else error  # tracebacks show what is behind an error
        server = _SERVER.search(url)
        if server is not None and _REFUSED.search(text):
            source = credential_source(server[0])
            told = f"{redact(url)} refuses to {verb} with these credentials: {source}; {text}"
            raise CredentialsError(told) from known
        codes = _ACCESS_CODES + (_CHUNK_CODES if chunks else _OBJECT_CODES)
        kind = next((kind for code, kind in codes if code in text), StoreError)
        raise kind(f"cannot {verb} {redact(url)}: {text}") from known


def wait(future: Any, url: str) -> Any:
    """Return what a future of tensorstore comes to, and say now and then, while it does not, what is waited for."""
    waited = 0.0
    while True:
        try:
            return future.result(timeout=_SAID_EVERY)
        except TimeoutError:
            if future.done():
                return future.result()
        waited += _SAID_EVERY
        _log.warning("waiting for %s for %d s", redact(url), waited)
