"""What people may read of a text: everything but the passwords, keys, tokens and signatures in it."""

from __future__ import annotations

import functools
import os
import re
from typing import Any
from urllib.parse import quote

_SHORTEST = 8  # of a secret in the environment; shorter values are words such as "true"
_SECRET_NAME = re.compile(r"(?i)(SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|SECRET_KEY|CONNECTION_STRING)$")
_REMOTE = r"(?<![\w+.-])(?!file:|memory:)[a-zA-Z][\w+.-]*://"
_HOST_AND_PORT = r"(?:localhost|[\w-]+(?:\.[\w-]+)+|\[[0-9a-fA-F:]+\]):\d+/"
_QUERY_NAMES = r"sig|signature|token|\w+_token|key|\w*access_?key\w*|auth|code|credentials?|password|secret"
_NAMES = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|aws_?\w*(?:key|token)(?:_id)?|(?:secret_?)?access_?key(?:_?id)?"
    r"|secret_?key|session_?token|client_?secret|password|passwd|api_?key"
)
_ELEMENTS = r"AWSAccessKeyId|Signature\w*|StringToSign\w*|CanonicalRequest\w*|(?:Provided)?Token\w*"
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        (rf"({_REMOTE})(?:(?!{_HOST_AND_PORT}|(?:https?|s3|gs)://)[^\s/@:]*:\S*|[^\s/@]*)@", r"\1"),
        (rf"({_REMOTE}[^\s?'\"]*)\?[^\s'\"]+?(?=[:;,)\]]*(?:[\s'\"]|$))", r"\1?..."),
        (r"(bucket name:? ['\"])[^'\"]*@", r"\1"),
        (rf"([?&;](?:{_QUERY_NAMES})=)[^&\s'\"]+", r"\1..."),
        (r"((?:proxy-)?authorization\b['\"]?\s*[:=,]\s*b?['\"]?)[^'\"\r\n]+", r"\1..."),
        (rf"(?<![a-zA-Z])((?:{_NAMES})['\"]?\s*[=:]\s*b?['\"]?)[^\s'\"&,;<>]+", r"\1..."),
        (r"\b(bearer )\s*[\w.~+/=-]{8,}", r"\1..."),
        (rf"(<({_ELEMENTS})>)[^<]*", r"\1..."),
    )
)

# What moves the cursor, colours, hides or turns around what is read; not tabs and new lines.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# What every rule needs in a text, found in one pass.
_HINT = re.compile(r"[@?=<]|:(?!//)|(?:key|id|token|secret|passwo?r?d)['\"]?\s*:|bearer|authorization", re.IGNORECASE)


def redact(text: str) -> str:
    r"""Return the text without user names, passwords and queries of URLs, and without credentials by other names.

    Local paths stay as they are, but what a terminal would obey or not show is written out, e.g. as ``\x1b``. What is
    left is not changed by another pass.
    """
    return _redact(text, _secrets())


def _redact(text: str, secrets: set[str]) -> str:
    text = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "...")
    if _HINT.search(text) is None:
        return text
    before = None
    while text != before:
        before = text
        for pattern, shown in _RULES:
            text = pattern.sub(shown, text)
    return text


def redacted(value: Any) -> Any:
    """Return JSON values with every text in them redacted."""
    return _redacted(value, _secrets())


def _redacted(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, str):
        return _redact(value, secrets)
    if isinstance(value, dict):
        return {_redacted(key, secrets): _redacted(inner, secrets) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, secrets) for inner in value]
    return value


def _secrets() -> set[str]:
    """Return the secrets in this process's environment, as they are and as URLs have them."""
    values = (os.environ.get(name, "") for name in _secret_names(tuple(os.environb)))
    return {spelled for value in values if len(value) >= _SHORTEST for spelled in (value, quote(value, safe=""))}


@functools.lru_cache(maxsize=8)
def _secret_names(names: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(name for name in map(os.fsdecode, names) if _SECRET_NAME.search(name))
