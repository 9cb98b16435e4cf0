"""The commands of the containers are understood by what they start, and work together as processes of this machine."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import distributed
import pytest
import yaml
from chart_values import GOOD
from distributed.cli import dask_scheduler, dask_worker

from daskflow.cli.app import app

CHART = Path(__file__).parents[2] / "helm/daskflow"
REFERENCE = re.compile(r"\$\(([A-Z_]+)\)")
BIN = Path(sys.executable).parent


def words(container):
    """A container's command as Kubernetes would start it: references to variables filled in."""
    variables = {one["name"]: one.get("value", "10.0.0.7") for one in container["env"]}
    variables.setdefault("DASK_WORKER_NAME", "worker-1")  # the operator adds it
    found = [*container["command"], *container.get("args", ())]
    return [REFERENCE.sub(lambda match: variables[match[1]], word) for word in found]


@pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
def test_commands_are_understood(install, values):
    seen = set()
    default = f"{'tls' if values.get('tls', {}).get('enabled', True) else 'tcp'}://em-daskflow-scheduler.lab.svc:8786"
    scheduler = values.get("env", {}).get("DASK_SCHEDULER_ADDRESS", default)
    for name, container in install(values).containers():
        match words(container):
            case ["dask", "scheduler", *options]:
                dask_scheduler.main.make_context("dask scheduler", list(options))
            case ["dask", "worker", address, *options]:
                context = dask_worker.main.make_context("dask worker", [address, *options])
                assert context.params["scheduler"] == scheduler
                assert context.params["host"] == "10.0.0.7"
            case ["daskflow", *options]:
                context = app.make_context("daskflow", list(options))
                assert context.params["cluster"] == scheduler
                assert parsed(context)
            case ["python", "-c", text]:
                compile(text, name, "exec")
            case ["python", file, *_]:
                assert file in {f"{mount['mountPath']}/recipe.py" for mount in container["volumeMounts"]}
            case ["jupyter", "lab", *_]:
                assert {"JUPYTER_TOKEN"} <= {one["name"] for one in container["env"]}
            case other:
                pytest.fail(f"{name} starts {other}")
        seen.add(name)
    assert seen


def parsed(context):
    """The names of the commands of a chained line, each with options that it has."""
    words, names = [*context._protected_args, *context.args], []
    while words:
        name, command, words = app.resolve_command(context, words)
        settings = {"allow_extra_args": True, "allow_interspersed_args": False}
        one = command.make_context(name, words, parent=context, **settings)
        words, names = one.args, [*names, name]
    return names


def test_variables_of_the_chart_are_keys_of_dask_s_configuration(install):
    from dask.config import collect_env, get

    for _, container in install(GOOD["operator, two groups, scaled"]).containers():
        variables = {one["name"]: one["value"] for one in container["env"] if "value" in one}
        stated = collect_env({name: value for name, value in variables.items() if name.startswith("DASK_DISTRIBUTED")})
        for path in leaves(stated):
            assert get(path, default="unknown") != "unknown", path
    routes = [
        one["value"]
        for _, container in install(GOOD["operator"]).containers()
        for one in container["env"]
        if one["name"].endswith("HTTP__ROUTES")
    ]
    for module in yaml.safe_load(routes[0]):
        __import__(module)


def leaves(tree, path=""):
    for name, value in tree.items():
        here = f"{path}.{name}".lstrip(".")
        if isinstance(value, dict):
            yield from leaves(value, here)
        else:
            yield here


class Processes:
    """The pods of a release as processes of this machine: other paths and ports, the same words and variables."""

    def __init__(self, release, directory):
        self.release, self.directory, self.running = release, directory, []
        (secret,) = [one for one in release.of("Secret") if one["type"] == "kubernetes.io/tls"]
        for name, value in secret["data"].items():
            (directory / name).write_bytes(base64.b64decode(value))
        self.ports = {port: free_port() for port in ("8786", "8787", "8788", "8789", "8790")}

    def here(self, text):
        """A text of a manifest for this machine."""
        text = text.replace("/etc/daskflow/tls", str(self.directory))
        text = re.sub(r"^10\.0\.0\.7$|em-daskflow-scheduler\.lab\.svc", "127.0.0.1", text)
        text = str(self.directory) if text == "/tmp" else text
        match = re.fullmatch(r"(.*:)?(\d{4})", text)
        return f"{match[1] or ''}{self.ports[match[2]]}" if match and match[2] in self.ports else text

    def start(self, name):
        (container,) = [container for path, container in self.release.containers() if path.endswith(name)]
        variables = {one["name"]: self.here(one["value"]) for one in container["env"] if "value" in one}
        command = [self.here(word) for word in words(container)]
        command[0] = str(BIN / command[0])
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **variables}
        with self.log(name).open("w") as log:
            process = subprocess.Popen(command, env=environment, cwd=self.directory, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def log(self, name):
        return self.directory / f"{name.replace('/', '_')}.log"

    def run(self, name):
        process = self.start(name)
        process.wait(timeout=150)
        told = self.log(name).read_text()
        assert process.returncode == 0, told
        return told

    def healthy(self, port):
        """Wait until the probe of a pod succeeds."""
        for _ in range(240):
            with contextlib.suppress(OSError):
                address = f"http://127.0.0.1:{self.ports[port]}/health"
                if urllib.request.urlopen(address, timeout=10).read() == b"ok":
                    return
            time.sleep(0.25)
        logs = "\n".join(log.read_text() for log in self.directory.glob("*.log"))
        pytest.fail(f"no health at port {port}\n{logs}")

    def stop(self):
        for process in reversed(self.running):
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=60)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_scheduler_worker_driver_and_test_work_together_by_tls(install, tmp_path):
    out = tmp_path / "out"
    command = ["create-chunk", "--size", "8", "64", "64", "save", str(out), "--chunk", "8", "32", "64"]
    pods = Processes(install({"driver": {"command": command}}), tmp_path)
    try:
        scheduler = pods.start("-scheduler/scheduler")
        pods.healthy("8787")
        worker = pods.start("-worker-cpu/worker")
        pods.healthy("8790")
        pods.run("/wait-for-workers")
        assert "save-out" in pods.run("/driver")
        written = (out / "info").stat().st_mtime_ns
        pods.run("/driver")  # started again, it has nothing left to do
        assert (out / "info").stat().st_mtime_ns == written
        assert "1 workers with daskflow" in pods.run("/test")
        address = f"tls://127.0.0.1:{pods.ports['8786']}"
        stranger = distributed.Security.temporary()
        with pytest.raises(OSError, match="TLS certificate does not match"):
            distributed.Client(address, security=stranger, timeout=2)
        with pytest.raises(OSError, match="tcp://"):
            distributed.Client(address.replace("tls", "tcp"), timeout=2)
        worker.terminate()
        assert worker.wait(timeout=60) == 0
        assert scheduler.poll() is None
    finally:
        pods.stop()
