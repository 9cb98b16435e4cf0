"""A Kubernetes API server of a chosen version, in memory, on loopback: as much of it as Helm asks for.

It stores what is applied, answers `lookup`, and refuses what server-side apply of Kubernetes 1.20 refuses: elements of
lists without the keys by which they are merged, and kinds that the version does not have.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import yaml

# group and version -> kind -> (plural, first and last minor version of Kubernetes 1 that has it)
SERVED = {
    "v1": {
        "Pod": ("pods", 1, 99),
        "Secret": ("secrets", 1, 99),
        "ConfigMap": ("configmaps", 1, 99),
        "Service": ("services", 1, 99),
        "ServiceAccount": ("serviceaccounts", 1, 99),
    },
    "apps/v1": {"Deployment": ("deployments", 9, 99)},
    "batch/v1": {"Job": ("jobs", 2, 99)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", 7, 99), "Ingress": ("ingresses", 19, 99)},
    "policy/v1beta1": {"PodDisruptionBudget": ("poddisruptionbudgets", 5, 24)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", 21, 99)},
    "autoscaling/v2beta2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", 12, 25)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", 23, 99)},
    "kubernetes.dask.org/v1": {
        "DaskCluster": ("daskclusters", 16, 99),
        "DaskWorkerGroup": ("daskworkergroups", 16, 99),
        "DaskAutoscaler": ("daskautoscalers", 16, 99),
    },
}


class Cluster:
    """What the server holds.

    Attributes:
        minor: of the version 1.minor that it states.
        objects: by path.
    """

    def __init__(self, minor: int) -> None:
        self.minor = minor
        self.objects: dict[str, dict[str, Any]] = {}

    def kinds(self, group_version: str) -> dict[str, str]:
        """Kind -> plural, of what this version serves."""
        kinds = SERVED.get(group_version, {})
        return {kind: plural for kind, (plural, first, last) in kinds.items() if first <= self.minor <= last}

    def discover(self, path: str) -> dict[str, Any] | None:
        """Answer what the server has."""
        if path == "/version":
            return {"major": "1", "minor": str(self.minor), "gitVersion": f"v1.{self.minor}.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups: dict[str, list[dict[str, str]]] = {}
            for name in SERVED:
                if "/" in name and self.kinds(name):
                    group, version = name.split("/")
                    groups.setdefault(group, []).append({"groupVersion": name, "version": version})
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [
                    {"name": group, "versions": versions, "preferredVersion": versions[-1]}
                    for group, versions in groups.items()
                ],
            }
        group_version = path.removeprefix("/api/").removeprefix("/apis/")
        if not self.kinds(group_version):
            return None
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind} | {"verbs": verbs}
                for kind, plural in self.kinds(group_version).items()
            ],
        }


def unmergeable(body: dict[str, Any], path: str = "") -> Iterator[str]:
    """Elements of lists that server-side apply cannot tell apart: ports without protocol, entries of one name."""
    for name, value in body.items():
        here = f"{path}.{name}"
        if isinstance(value, dict):
            yield from unmergeable(value, here)
        elif isinstance(value, list):
            entries = [entry for entry in value if isinstance(entry, dict)]
            if name == "ports":
                yield from (f"{here}: protocol is missing" for entry in entries if "protocol" not in entry)
            keys = {"env": "name", "containers": "name", "volumes": "name", "volumeMounts": "mountPath"}
            if name in keys:
                merged = [entry[keys[name]] for entry in entries]
                yield from (f"{here}: {one} twice" for one in set(merged) if merged.count(one) > 1)
            for number, entry in enumerate(entries):
                yield from unmergeable(entry, f"{here}[{number}]")


def immutable(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Fields that cannot be changed once an object is there."""
    fields = {"Job": ("template", "podFailurePolicy"), "Deployment": ("selector",)}.get(after["kind"], ())
    for name in fields:
        if before["spec"].get(name) != after["spec"].get(name):
            yield f"{after['kind']}.spec.{name}: field is immutable"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def reply(self, status: int, body: Any) -> None:
        self.send(status, "application/json", json.dumps(body).encode())

    def send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def fail(self, code: int, reason: str, message: str) -> None:
        self.reply(
            code,
            {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason}
            | {"code": code, "message": message},
        )

    @property
    def place(self) -> str:
        return urlsplit(self.path).path.rstrip("/")

    def do_GET(self) -> None:
        if self.place == "/openapi/v2":  # empty: the server checks fields, Helm need not
            self.send(200, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", b"")
        elif found := self.cluster.objects.get(self.place) or self.cluster.discover(self.place):
            self.reply(200, found)
        else:
            self.fail(404, "NotFound", f"{self.place} not found")

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = self.cluster.objects.pop(self.place, None)
        if found:
            self.reply(200, found)
        else:
            self.fail(404, "NotFound", f"{self.place} not found")

    def do_PATCH(self) -> None:
        """Server-side apply."""
        body = yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))
        before = self.cluster.objects.get(self.place)
        wrong = [*unmergeable(body), *(immutable(before, body) if before else ())]
        if wrong:
            self.fail(422, "Invalid", "; ".join(wrong))
            return
        body["metadata"] |= {"uid": self.place, "resourceVersion": "1"}
        self.cluster.objects[self.place] = body
        self.reply(200, body)


@contextmanager
def api_server(minor: int) -> Iterator[tuple[str, Cluster]]:
    """Serve an empty cluster of version 1.minor; yield its URL and what it holds."""
    cluster = Cluster(minor)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHandler", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", cluster
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
