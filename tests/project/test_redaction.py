"""Passwords, keys, tokens and signatures are in no text that people, logs or files get."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskflow
from daskflow import errors
from daskflow.redaction import redact, redacted

SECRET = "h0rse-stap1e"
PASSWORDS = st.text(st.sampled_from("aZ0/@:%?#&=+!$'"), min_size=0, max_size=12).map(
    lambda text: f"{text}{SECRET}{text[::-1]}"
)


@given(
    PASSWORDS,
    st.sampled_from(["http", "https", "s3", "gs", "ftp", "postgresql+psycopg", "precomputed://https"]),
    st.sampled_from(["", "said: ", "base_url='", '{"url": "', "("]),
)
def test_password_in_a_url_is_gone_and_the_place_is_left(password: str, scheme: str, before: str) -> None:
    shown = redact(f"{before}{scheme}://user:{password}@host.org/layer")
    assert SECRET not in shown
    assert shown == f"{before}{scheme}://host.org/layer"


@pytest.mark.parametrize(
    "text",
    [
        "https://h/x?X-Amz-Credential=A&X-Amz-Signature={}",
        "/x?sig={}&se=2026",
        "HEAD /x?a=1&token={}",
        "https://h/x;access_key={}",
        "https://{}@github.com/x",
        "https://account.blob.core.windows.net/c?{}",
        "Authorization: Bearer {}",
        "{{'Authorization': 'Basic {}'}}",
        "authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature={}",
        "x-amz-security-token: {}",
        "AWS_SECRET_ACCESS_KEY={}",
        "aws_session_token = {}",
        "config(aws_secret_access_key='{}')",
        "secretAccessKey: '{}'",
        "<AWSAccessKeyId>{}</AWSAccessKeyId>",
        "password={}",
        'Invalid S3 bucket name: "me:{}@bucket"',
        '{{"password": "{}"}}',
    ],
)
def test_credential_by_any_name_is_gone(text: str) -> None:
    shown = redact(text.format(SECRET))
    assert SECRET not in shown
    assert redact(shown) == shown


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MY_API_KEY", "DB_PASSWORD"])
def test_secret_of_the_environment_is_gone_wherever_it_stands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, f"{SECRET}/+")
    assert redact(f"({SECRET}/+) and {SECRET}%2F%2B") == "(...) and ..."


@pytest.mark.parametrize(
    "text",
    [
        "/data/a:b@c/token=5/x?y=1",
        "file:///data/a:b@c/x?y",
        "memory://a/b@c",
        "s3://bucket/raw@v2/image",
        "http://localhost:8080/a@b/c",
        "https://data.host.org:8443/raw@v2",
        "threshold 0.5: what? nothing, the key 'a' is missing; tokens: 3",
        "chunk 0-64_0-64_0-64 at 5:30, mail me@lab.org",
    ],
)
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


@given(st.lists(st.sampled_from([*"a:/@?=&;',) \n.", "http://", "token=", "password: ", "bearer aaaaaaaa"])))
def test_redacting_twice_changes_nothing(pieces: list[str]) -> None:
    shown = redact("".join(pieces))
    assert redact(shown) == shown


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.DaskflowError)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_of_ours_holds_a_secret(kind: type[errors.DaskflowError]) -> None:
    error = kind(f"cannot read https://me:{SECRET}/x@host/layer?sig={SECRET}: why?")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert str(one) == "cannot read https://host/layer?...: why?"
        assert SECRET not in repr(one)
    assert SECRET not in "".join(traceback.format_exception(error))


def test_values_of_json_are_redacted_at_every_depth() -> None:
    values = {"a": [{"b": f"s3://k:{SECRET}@bucket/x"}], f"http://u:{SECRET}@h": (1, None, True)}
    assert redacted(values) == {"a": [{"b": "s3://bucket/x"}], "http://h": [1, None, True]}


def fail(array: object) -> object:
    raise ValueError(f"no answer from https://me:{SECRET}/x@host/model?X-Amz-Signature={SECRET}")


def test_nothing_that_a_job_writes_or_says_holds_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    volume = daskflow.create_chunk(size=(8, 16, 16)).map_blocks(_fail_at_the_edge, dtype="uint8")
    job = daskflow.save(volume, str(tmp_path / "out"), chunk=(8, 8, 8), block=(8, 8, 8))
    report = job.run(retries=0)
    assert not report.ok
    told = capsys.readouterr()
    texts = [told.out, told.err, str(job.plan()), repr(report.failures)]
    texts += [str(report), repr(report), report._repr_html_()]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*.json")]
    assert any("no answer from https://host/model?..." in text for text in texts)
    assert any("failures" in path.name and json.loads(path.read_text()) for path in tmp_path.rglob("*.json"))
    assert not [text for text in texts if SECRET in text]


def _fail_at_the_edge(array: object, box: daskflow.BoundingBox) -> object:
    return fail(array) if box.start == (0, 0, 0) else array


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "URL", "open", "x"),
        ("URL",),
        ("open", "--mip", "URL", "URL"),
        ("open", "/x", "--mip", "URL", "save", "y"),
        ("--plugin-file", "PLUGIN", "open", "/x"),
    ],
)
def test_command_line_shows_no_secret_whatever_is_wrong_with_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"raise OSError('no answer from https://me:{SECRET}@host/x')")
    known = {"URL": f"https://me:{SECRET}@host/layer?sig={SECRET}", "PLUGIN": str(plugin)}
    code = "from daskflow.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *(known.get(word, word) for word in words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode
    assert "host" in done.stderr or "URL" not in words
    assert SECRET not in done.stdout + done.stderr


def test_exception_of_others_reaches_the_terminal_without_secrets() -> None:
    code = (
        "import daskflow.cli.app as a, daskflow.cli as c\n"
        f"def app(): raise OSError('no answer from https://me:{SECRET}@host/x')\n"
        "a.app = app; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "OSError: no answer from https://host/x" in done.stderr
    assert SECRET not in done.stderr


def test_repr_of_a_volume_and_of_its_store_holds_no_secret() -> None:
    url = f"memory://test-redaction/layer?sig={SECRET}"
    volume = daskflow.create_chunk(size=(4, 4, 4))
    daskflow.save(volume, url, chunk=(4, 4, 4)).run(progress=False)
    opened = daskflow.open(url)
    store = opened.node.store
    texts = [repr(opened), opened._repr_html_(), str(opened), repr(store)]
    assert not [text for text in texts if SECRET in text]
