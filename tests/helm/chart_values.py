"""Values that the chart is tried with."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

PAGES = [Path(__file__).parents[2] / page for page in ("helm/daskflow/README.md", "docs/kubernetes.md")]
RECIPES = sorted((Path(__file__).parents[2] / "recipes/kubernetes").glob("*.yaml"))
GOOD = {
    "default": {},
    "command": {"driver": {"command": ["--retries", "3", "open", "s3://b/image", "save", "s3://b/copy"]}},
    "recipe": {"driver": {"recipe": "print('<a> & \"b\"')\n", "args": ["--cluster", "$(DASK_SCHEDULER_ADDRESS)"]}},
    "gpus on spot machines": {
        "workers": {
            "cpu": {"replicas": 8, "nodeSelector": {"pool": "cpu"}},
            "gpu": {
                "enabled": True,
                "spot": True,
                "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
                "runtimeClassName": "nvidia",
                "autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 64},
            },
        }
    },
    "a group of one's own": {
        "workers": {"cpu": {"enabled": False}, "big": {"threads": 4, "resources": {"limits": {"memory": "64Gi"}}}}
    },
    "no workers yet": {"workers": {"cpu": {"replicas": 0}}},
    "operator": {"operator": {"enabled": True}},
    "operator, two groups, scaled": {
        "operator": {"enabled": True},
        "driver": {"command": ["open", "x", "save", "y"]},
        "workers": {"cpu": {"autoscaling": {"enabled": True, "maxReplicas": 200}}, "gpu": {"enabled": True}},
    },
    "jupyter": {"jupyter": {"enabled": True}},
    "jupyter with a secret of one's own": {"jupyter": {"enabled": True, "existingSecret": "lab-token"}},
    "dashboard behind a password": {
        "dashboard": {
            "ingress": {"enabled": True, "host": "d.lab.org", "tlsSecret": "d-tls", "basicAuthSecret": "d-users"}
        }
    },
    "dashboard behind a proxy": {
        "dashboard": {
            "ingress": {
                "enabled": True,
                "host": "d.lab.org",
                "tlsSecret": "d-tls",
                "authAnnotations": {"nginx.ingress.kubernetes.io/auth-url": "https://login.lab.org/oauth2/auth"},
            }
        }
    },
    "without encryption": {"tls": {"enabled": False}},
    "certificates in a secret": {"tls": {"existingSecret": "dask-certificates"}},
    "certificates given": {"tls": {"ca": "authority-5c1", "certificate": "certificate-5c1", "key": "key-5c1"}},
    "buckets and claims": {
        "env": {"AWS_ENDPOINT_URL": "http://minio.store.svc:9000", "CLOUD_VOLUME_DIR": "/var/cloudvolume"},
        "secrets": {
            "env": ["aws"],
            "files": [
                {
                    "secret": "gcs-key",
                    "mountPath": "/var/secrets/google",
                    "variable": "GOOGLE_APPLICATION_CREDENTIALS",
                    "key": "key.json",
                },
                {"secret": "cloudvolume", "mountPath": "/var/cloudvolume/secrets"},
            ],
        },
        "storage": [
            {"claim": "em-data", "mountPath": "/data", "readOnly": True},
            {"claim": "out", "mountPath": "/out"},
        ],
        "image": {"repository": "registry.lab.org/daskflow", "tag": "1", "pullSecrets": ["registry"]},
        "driver": {"command": ["open", "x", "save", "y"]},
    },
    "an address of the scheduler": {
        "env": {"DASK_SCHEDULER_ADDRESS": "tls://10.1.2.3:8786"},
        "driver": {"command": ["open", "x", "save", "y"]},
    },
    "workload identity": {
        "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "em@lab.iam.gserviceaccount.com"}},
        "podLabels": {"azure.workload.identity/use": "true"},
        "podAnnotations": {"note": "x"},
    },
    "an account that exists": {"serviceAccount": {"create": False, "name": "em-writer"}},
    "nothing around": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
}
GOOD["everything"] = {
    **GOOD["buckets and claims"],
    **GOOD["gpus on spot machines"],
    **GOOD["jupyter"],
    **GOOD["dashboard behind a password"],
    **GOOD["workload identity"],
}
GOOD |= {
    f"{page.stem}, example {number}": yaml.safe_load(text)
    for page in PAGES
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL), 1)
}
GOOD |= {f"recipe {path.stem}": yaml.safe_load(path.read_text()) for path in RECIPES}

# values -> a part of the message
BAD = {
    "a misspelt name": ({"worker": {}}, "worker"),
    "a misspelt name in a group": ({"workers": {"cpu": {"replica": 2}}}, "replica"),
    "a group whose name is not a label": ({"workers": {"My_Group": {}}}, "My_Group"),
    "no threads": ({"workers": {"cpu": {"threads": 0}}}, "threads"),
    "replicas as text": ({"workers": {"cpu": {"replicas": "2"}}}, "replicas"),
    "memory that is none": ({"workers": {"cpu": {"resources": {"limits": {"memory": "4 GB"}}}}}, "memory"),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
    "secrets that the user cannot read": ({"podSecurityContext": {"fsGroup": None}}, "fsGroup"),
    "root by name": ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
    "a secret among variables": ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "AWS_SECRET_ACCESS_KEY"),
    "a secret among variables of a group": ({"workers": {"cpu": {"env": {"MY_TOKEN": "x"}}}}, "MY_TOKEN"),
    "certificates turned off by a variable": (
        {"env": {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False"}},
        "REQUIRE_ENCRYPTION",
    ),
    "a number among variables": ({"env": {"A": 1}}, "/env/A"),
    "a path of the host": ({"storage": [{"hostPath": "/data", "mountPath": "/data"}]}, "hostPath"),
    "a claim over /tmp": ({"storage": [{"claim": "a", "mountPath": "/tmp"}]}, "mountPath"),
    "a variable for no file": (
        {"secrets": {"files": [{"secret": "a", "mountPath": "/s", "variable": "B"}]}},
        "key",
    ),
    "a recipe and a command": ({"driver": {"recipe": "x", "command": ["y"]}}, "two ways"),
    "words after a command": ({"driver": {"command": ["y"], "args": ["z"]}}, "driver.command instead"),
    "an ingress for everybody": (
        {"dashboard": {"ingress": {"enabled": True, "host": "d.org", "tlsSecret": "t"}}},
        "basicAuthSecret",
    ),
    "an ingress in the clear": (
        {"dashboard": {"ingress": {"enabled": True, "host": "d.org", "basicAuthSecret": "t"}}},
        "tlsSecret",
    ),
    "half of the certificates": ({"tls": {"ca": "CA"}}, "all three"),
    "more at least than at most": (
        {"workers": {"cpu": {"autoscaling": {"enabled": True, "minReplicas": 20}}}},
        "minReplicas 20 is above maxReplicas 10",
    ),
    "a default group that is off": (
        {"operator": {"enabled": True, "defaultGroup": "gpu"}},
        "not an enabled worker group",
    ),
    "two groups for one autoscaler": (
        {"operator": {"enabled": True}, "workers": {"gpu": {"enabled": True, "autoscaling": {"enabled": True}}}},
        "one group only",
    ),
    "a public scheduler": ({"scheduler": {"service": {"type": "LoadBalancer"}}}, "service"),
}
