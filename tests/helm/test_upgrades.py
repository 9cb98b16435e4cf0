"""What an upgrade keeps and what it replaces."""

from __future__ import annotations

import base64
import contextlib
import ssl
from contextlib import contextmanager
from pathlib import Path

import pytest

CHART = str(Path(__file__).parents[2] / "helm/daskflow")
COMMAND = {"driver": {"command": ["open", "s3://b/x", "save", "s3://b/y"]}}


@pytest.fixture
def release(helm):
    """A function that installs or upgrades one release, and returns what is on the server afterwards."""
    from kubernetes_api import api_server

    @contextmanager
    def opened():
        with (
            api_server(20) as (url, cluster),
            helm.Config(kube_apiserver=url, namespace="lab", storage_driver="memory") as config,
        ):

            def apply(values):
                act = config.upgrade if cluster.objects else config.install
                act(CHART, "em", values)
                return {path.removeprefix("/api/v1/namespaces/lab/"): one for path, one in cluster.objects.items()}

            yield apply

    with opened() as apply:
        yield apply


def jobs(objects):
    return [path.rsplit("/", 1)[1] for path in objects if "/jobs/" in path]


def test_certificates_and_token_are_kept(release):
    values = {"jupyter": {"enabled": True}}
    first, again = [
        (objects["secrets/em-daskflow-tls"]["data"], objects["secrets/em-daskflow-jupyter"]["data"])
        for objects in (release(values), release({**values, "workers": {"cpu": {"replicas": 5}}}))
    ]
    assert first == again


def test_certificates_are_signed_by_their_authority(release, tmp_path):
    for name, value in release({})["secrets/em-daskflow-tls"]["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(value))
    authority = str(tmp_path / "ca.crt")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=authority)
    client.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(one, other, server_hostname="em-daskflow-scheduler.lab.svc"),
        server.wrap_bio(other, one, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].getpeercert() == ends[1].getpeercert()
    assert ends[0].getpeercert()["subject"] != ends[0].getpeercert()["issuer"]


def test_the_driver_s_job_is_replaced_when_its_words_change_and_only_then(release):
    first = jobs(release(COMMAND))
    assert jobs(release({**COMMAND, "workers": {"cpu": {"replicas": 5}}})) == first
    (other,) = jobs(release({"driver": {"command": ["open", "s3://b/x", "save", "s3://b/z"]}}))
    assert [other] != first
    recipes = [jobs(release({"driver": {"recipe": text}})) for text in ("print(1)", "print(2)")]
    assert len({name for (name,) in recipes} | {other}) == 3


def test_other_certificates_from_the_values_restart_the_pods(release):
    def stamp(key):
        values = {"tls": {"ca": "CA", "certificate": "C", "key": key}}
        pod = release(values)["/apis/apps/v1/namespaces/lab/deployments/em-daskflow-scheduler"]["spec"]["template"]
        return pod["metadata"]["annotations"]["daskflow/certificates"]

    assert stamp("K") != stamp("L")
