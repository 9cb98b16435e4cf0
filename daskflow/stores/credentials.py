"""Which credentials a URL is accessed with: where they come from, never what they are."""

from __future__ import annotations

import os
from pathlib import Path


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
