"""What servers answer: errors of tensorstore as daskflow's, futures that take long, and which credentials were used."""

from __future__ import annotations

import json
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

_SAID_EVERY = 10.0
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


def anonymous_s3() -> bool:
    """Return whether the environment says that requests to S3 are not signed."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")


def use_secrets(scheme: str) -> None:
    """Take the credentials of CloudVolume's secret files for s3 or gs, where nothing else is configured.

    They are ``aws-secret.json`` and ``google-secret.json`` in ``secrets`` below CLOUD_VOLUME_DIR (~/.cloudvolume unless
    set) or CLOUD_FILES_DIR (~/.cloudfiles), as cloud-files looks for them. Secrets for single buckets are not used.

    Raises:
        CredentialsError: such a file does not hold what it should.
    """
    if scheme == "gs":
        configured = bool(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")) or _gcloud_file().is_file()
    else:
        configured = anonymous_s3() or bool(os.environ.get("AWS_ACCESS_KEY_ID") or _aws_files())
    path = None if configured else _secret({"s3": "aws-secret.json", "gs": "google-secret.json"}[scheme])
    if path is None:
        return
    if scheme == "gs":
        found = {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    else:
        try:
            values = json.loads(path.read_bytes())
            found = {name: str(values[name]) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CredentialsError(f"{path} holds no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as JSON") from error
        found |= {name: str(values[name]) for name in ("AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION") if values.get(name)}
    os.environ.update(found)
    _SECRETS[scheme] = path


_SECRETS: dict[str, Path] = {}  # by scheme, the file whose credentials this process has taken


def _secret(name: str) -> Path | None:
    homes = (("CLOUD_VOLUME_DIR", "~/.cloudvolume"), ("CLOUD_FILES_DIR", "~/.cloudfiles"))
    paths = [Path(os.environ.get(variable, home)).expanduser() / "secrets" / name for variable, home in homes]
    return next((path for path in paths if path.is_file()), None)


def credential_source(url: str) -> str:
    """Return where the credentials for a normalised URL come from, for people to read."""
    scheme, _, rest = url.partition("://")
    if scheme in _SECRETS:
        return str(_SECRETS[scheme])
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
    if files := _aws_files():
        return f"profile {env.get('AWS_PROFILE', 'default')!r} in {' and '.join(files)}"
    return "the role of this machine, or none (anonymous): neither AWS_ACCESS_KEY_ID nor a file in ~/.aws is there"


def _aws_files() -> list[str]:
    env = os.environ
    named = (env.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), env.get("AWS_CONFIG_FILE", "~/.aws/config"))
    return [str(path) for path in (Path(name).expanduser() for name in named) if path.is_file()]


def _gcloud_file() -> Path:
    return Path(
        os.environ.get("CLOUDSDK_CONFIG", "~/.config/gcloud"), "application_default_credentials.json"
    ).expanduser()


def _gcs() -> str:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return f"{named}, which GOOGLE_APPLICATION_CREDENTIALS names"
    if _gcloud_file().is_file():
        return str(_gcloud_file())
    return (
        "the service account of this machine, or none (anonymous): GOOGLE_APPLICATION_CREDENTIALS is not set,"
        " and `gcloud auth application-default login` was not run"
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
