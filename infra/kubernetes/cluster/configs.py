"""What containerd, the kubelet and kube-proxy need to know on a machine without systemd and with cgroup v1."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PAUSE = "localhost/pause:1"
PODS = "10.244.0.0/16"


@dataclass(frozen=True)
class Node:
    """number: of 1 and 2. Both run on one machine, so ports, sockets and cgroups differ by it."""

    number: int
    folder: Path

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{9 + self.number}"

    @property
    def socket(self) -> Path:
        return self.folder / self.name / "containerd.sock"

    @property
    def cgroup(self) -> str:
        return f"/linewatch-{self.name}"


def containerd(node: Node) -> str:
    home = node.folder / node.name
    return f"""version = 2
root = "{home}/root"
state = "{home}/state"
[grpc]
  address = "{node.socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_tcp_service = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{node.folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        SystemdCgroup = false
"""


def network(folder: Path) -> str:
    """One bridge for all pods of both nodes: it carries everything, whatever NetworkPolicies say."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{folder}/addresses",
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]})


def kubelet(node: Node) -> str:
    keys = node.folder / "pki"
    return f"""apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {node.cgroup}
failSwapOn: false
containerRuntimeEndpoint: unix://{node.socket}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {keys}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {keys}/{node.name}.crt
tlsPrivateKeyFile: {keys}/{node.name}.key
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
resolvConf: {node.folder}/resolv.conf
enforceNodeAllocatable: []
oomScoreAdj: 0
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
podLogsDir: {node.folder}/{node.name}/podlogs
maxPods: 60
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
protectKernelDefaults: false
maxOpenFiles: 20000
port: {10249 + node.number}
healthzPort: {10239 + node.number}
volumePluginDir: {node.folder}/{node.name}/plugins
"""


def proxy(folder: Path) -> str:
    return f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: {PODS}
clientConnection: {{kubeconfig: {folder}/pki/proxy.conf}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
hostnameOverride: node1
oomScoreAdj: 0
"""
