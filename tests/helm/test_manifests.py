"""What schemas cannot see: who may do what, and who reaches whom."""

from __future__ import annotations

import base64
import json
import re

import pytest
from chart_values import GOOD

MATRIX = pytest.mark.parametrize("values", GOOD.values(), ids=GOOD)
SECRETS = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY|password|token=", re.IGNORECASE)


def selects(selector, labels):
    """Whether a Kubernetes label selector picks these labels."""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for one in selector.get("matchExpressions", ()):
        assert one["operator"] == "In"
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True


def reachable(release, source, target):
    """The ports of a pod of the release that another one reaches, by the network policies; None if no policy says."""
    policies = [one["spec"] for one in release.of("NetworkPolicy") if selects(one["spec"]["podSelector"], target)]
    if not policies:
        return None
    ports = set()
    for rule in (rule for policy in policies for rule in policy.get("ingress", ())):
        peers = [peer for peer in rule["from"] if "namespaceSelector" not in peer]
        if any(selects(peer["podSelector"], source) for peer in peers):
            ports |= {port["port"] for port in rule["ports"]}
    return ports


def component(labels):
    return labels["app.kubernetes.io/component"]


@MATRIX
def test_every_container_is_confined(install, values):
    release = install(values)
    for _, pod in release.pods().values():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert min(security["runAsUser"], security["runAsGroup"], security["fsGroup"]) > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    for name, container in release.containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, name
        assert security["readOnlyRootFilesystem"] is True, name
        assert security["capabilities"] == {"drop": ["ALL"]}, name
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
        assert "memory" in container["resources"]["limits"], name
        amounts = [amount for kind in container["resources"].values() for amount in kind.values()]
        assert all(isinstance(amount, str) for amount in amounts), name  # as the operator's schema wants them


@MATRIX
def test_every_mount_has_its_volume_and_every_volume_its_mount(install, values):
    for name, (_, pod) in install(values).pods().items():
        containers = [*pod.get("initContainers", ()), *pod["containers"]]
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name
        for container in containers:
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(paths) == len(set(paths)), name


@MATRIX
def test_every_port_states_its_protocol_and_no_service_is_public(install, values):
    release = install(values)
    ports = [port for one in release.of("Service") for port in one["spec"]["ports"]]
    ports += [port for _, container in release.containers() for port in container.get("ports", ())]
    ports += [
        port for one in release.of("NetworkPolicy") for rule in one["spec"].get("ingress", ()) for port in rule["ports"]
    ]
    assert ports
    assert all(port["protocol"] == "TCP" for port in ports)
    services = [one["spec"] for one in release.of("Service")]
    services += [one["spec"]["scheduler"]["service"] for one in release.of("DaskCluster")]
    assert services
    assert {service["type"] for service in services} == {"ClusterIP"}


@MATRIX
def test_selectors_pick_the_pods_that_they_are_for(install, values):
    release = install(values)
    labels = {name: pod for name, (pod, _) in release.pods().items()}
    for one in release.of("Deployment"):
        spec = one["spec"]
        assert selects(spec["selector"], spec["template"]["metadata"]["labels"])
        chosen = [name for name, pod in labels.items() if selects(spec["selector"], pod)]
        assert chosen == [f"Deployment/{one['metadata']['name']}"]
    for one in [*release.of("Service"), *release.of("PodDisruptionBudget")]:
        selector = one["spec"]["selector"]
        chosen = {
            component(pod)
            for pod in labels.values()
            if selects(selector if "matchLabels" in selector else {"matchLabels": selector}, pod)
        }
        assert chosen == {one["metadata"]["labels"]["app.kubernetes.io/component"]}
    for one in release.of("HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        (found,) = [d for d in release.of(target["kind"]) if d["metadata"]["name"] == target["name"]]
        assert "replicas" not in found["spec"]
    for one in release.of("Service"):
        names = {port["name"] for _, c in release.containers() for port in c.get("ports", ())}
        assert {port["targetPort"] for port in one["spec"]["ports"]} <= names


@MATRIX
def test_policies_let_through_what_the_work_needs_and_nothing_else(install, values):
    release = install(values)
    pods = {component(labels): labels for labels, _ in release.pods().values()}
    needed = {(client, "scheduler"): {8786} for client in ("worker", "driver", "jupyter", "test")}
    needed |= {(one, "worker"): {8788, 8789} for one in ("scheduler", "worker")}
    for source in [*pods, "stranger"]:
        for target in pods:
            expected = needed.get((source, target), set()) if release.of("NetworkPolicy") else None
            found = reachable(release, pods.get(source, {"app": "stranger"}), pods[target])
            assert found == expected, f"{source} to {target}"


@MATRIX
def test_other_namespaces_reach_the_dashboard_only_where_that_was_asked_for(install, values):
    release = install(values)
    found = {
        (one["metadata"]["name"], port["port"])
        for one in release.of("NetworkPolicy")
        for rule in one["spec"].get("ingress", ())
        if any("namespaceSelector" in peer for peer in rule["from"])
        for port in rule["ports"]
    }
    expected = set()
    if values.get("dashboard"):
        expected |= {("em-daskflow-scheduler", 8787)}
    if values.get("operator"):
        expected |= {("em-daskflow-scheduler", 8786), ("em-daskflow-scheduler", 8787)}
    assert found == expected


@MATRIX
def test_every_ingress_asks_who_you_are_and_is_encrypted(install, values):
    ingresses = install(values).of("Ingress")
    assert bool(ingresses) == bool(values.get("dashboard"))
    for one in ingresses:
        assert any("/auth-" in name for name in one["metadata"]["annotations"])
        assert one["spec"]["tls"][0]["hosts"] == [one["spec"]["rules"][0]["host"]]


@MATRIX
def test_no_secret_is_in_plain_sight(install, values):
    release = install(values)
    shown = [release.notes]
    shown += [json.dumps(one) for one in release.objects if one["kind"] != "Secret"]
    hidden = [
        base64.b64decode(value).decode() for one in release.of("Secret") for value in one.get("data", {}).values()
    ]
    for text in shown:
        assert not SECRETS.search(text.replace("{.data.token}", "").replace("automountServiceAccountToken", ""))
        assert not [secret for secret in hidden if secret in text or json.dumps(secret)[1:-1] in text]


def test_there_is_no_default_password(install):
    tokens = {
        one["data"]["token"]
        for minor in (20, 21, 22)
        for one in install(GOOD["jupyter"], minor).of("Secret")
        if "token" in one["data"]
    }
    assert len(tokens) == 3
    assert all(len(base64.b64decode(token)) >= 32 for token in tokens)


@MATRIX
def test_a_budget_guards_scheduler_and_driver(install, values):
    release = install(values)
    guarded = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in release.of("PodDisruptionBudget")}
    expected = {"scheduler", "driver"} if release.of("Job") else {"scheduler"}
    assert guarded == (set() if "podDisruptionBudget" in values else expected)


@MATRIX
def test_what_must_not_be_moved_tolerates_no_spot_machine(install, values):
    for _, (labels, pod) in install(values).pods().items():
        spot = any("spot" in json.dumps(one) for one in pod.get("tolerations", ()))
        assert not spot or component(labels) == "worker"


@MATRIX
def test_the_driver_is_started_again_when_it_dies(install, values):
    for job in install(values).of("Job"):
        assert job["spec"]["backoffLimit"] == 20
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@MATRIX
def test_probes_ask_ports_that_exist(install, values):
    for name, container in install(values).containers():
        ports = {port["name"] for port in container.get("ports", ())}
        probes = [container[probe] for probe in container if probe.endswith("Probe")]
        assert bool(probes) == bool(ports), name
        assert {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes} <= ports


def test_gpu_workers_are_one_process_with_one_gpu(install):
    release = install(GOOD["gpus on spot machines"])
    pods = dict(release.pods())
    _, pod = pods["Deployment/em-daskflow-worker-gpu"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["args"][-2:] == ["--resources", "GPU=1"]
    assert container["image"].endswith("-cuda")
    assert pod["runtimeClassName"] == "nvidia"
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= {one["key"] for one in pod["tolerations"]}
    _, cpu = pods["Deployment/em-daskflow-worker-cpu"]
    assert "--resources" not in cpu["containers"][0]["args"]
    assert cpu["nodeSelector"] == {"pool": "cpu"}


def test_the_operator_gets_one_cluster_with_its_groups(install):
    release = install(GOOD["operator, two groups, scaled"])
    assert not release.of("Deployment")
    assert not release.of("HorizontalPodAutoscaler")
    (cluster,) = release.of("DaskCluster")
    (group,) = release.of("DaskWorkerGroup")
    (scaler,) = release.of("DaskAutoscaler")
    name = cluster["metadata"]["name"]
    assert group["spec"]["cluster"] == scaler["spec"]["cluster"] == name
    assert (scaler["spec"]["minimum"], scaler["spec"]["maximum"]) == (1, 200)
    # What the operator adds to pods and looks for in a service.
    service = cluster["spec"]["scheduler"]["service"]
    assert service["selector"] == {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
    assert [port["name"] for port in service["ports"]] == ["tcp-comm", "http-dashboard"]
    for worker in (cluster["spec"]["worker"], group["spec"]["worker"]):
        (container,) = worker["spec"]["containers"]
        names = [one["name"] for one in container["env"]]
        assert "DASK_WORKER_NAME" not in names
        assert "DASK_SCHEDULER_ADDRESS" in names
        assert container["command"] == ["dask", "worker"]


def test_buckets_claims_and_identity_reach_every_container(install):
    release = install(GOOD["everything"])
    for name, container in release.containers():
        assert container["envFrom"] == [{"secretRef": {"name": "aws"}}], name
        variables = {one["name"]: one.get("value") for one in container["env"]}
        assert variables["GOOGLE_APPLICATION_CREDENTIALS"] == "/var/secrets/google/key.json"
        assert variables["AWS_ENDPOINT_URL"] == "http://minio.store.svc:9000"
        mounts = {mount["mountPath"]: mount.get("readOnly") for mount in container["volumeMounts"]}
        assert mounts["/data"] is True
        assert mounts["/out"] is False
        assert container["image"].startswith("registry.lab.org/daskflow:")
    for labels, pod in release.pods().values():
        assert labels["azure.workload.identity/use"] == "true"
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert pod["serviceAccountName"] == "em-daskflow"
    (account,) = release.of("ServiceAccount")
    assert account["metadata"]["annotations"] == {"iam.gke.io/gcp-service-account": "em@lab.iam.gserviceaccount.com"}
