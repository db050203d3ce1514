"""A cluster that lives as long as its test: control plane, one or two nodes, names, and KubeRay's operator."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from infra.kubernetes.cluster import configs
from infra.kubernetes.cluster.certificates import make_authority, make_node
from infra.kubernetes.cluster.configs import Node
from infra.kubernetes.cluster.images import write_borrowing_image, write_program_image
from infra.kubernetes.tools.programs import bin_dir, missing, module_dir
from infra.local.errors import CannotRun, NotReady

HERE = Path(__file__).parent
MANIFESTS = HERE / "manifests"
COREDNS, OPERATOR, BORROWER = "localhost/coredns:1", "localhost/kuberay-operator:1", "localhost/borrower:1"
POLICIES, POLICIES_QUEUE = "localhost/kube-network-policies:1", 100
NEEDED = ("containerd", "runc", "ctr", "setpriv", "unshare", "nsenter", "ip", "openssl", "iptables")
CNI = Path("/usr/lib/cni/bridge")


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    if os.geteuid() != 0:
        return "a cluster of its own needs root"
    if lacking := [each for each in NEEDED if shutil.which(each) is None]:
        return f"not installed: {', '.join(lacking)}"
    if not CNI.exists():
        return f"{CNI} is not there: install the CNI plugins (Debian: containernetworking-plugins)"
    if lacking := missing():
        return f"not in the cache: {', '.join(lacking)}; `make kube-tools` builds them"
    return None


class Cluster:
    """Started by `with`. folder: a new one of its own, with a short path, for sockets lie in it."""

    def __init__(
        self, folder: Path, say: Callable[[str], None], environment: Sequence[str] = (), image: Path | None = None
    ) -> None:
        """environment: of the image that borrows the machine's programs. image: an archive that the first node has."""
        self.folder, self._say, self._environment, self._image = folder, say, environment, image
        self._first = Node(1, folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._init = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if reason := why_not():
            raise CannotRun(f"No Kubernetes here: {reason}.")
        try:
            self._prepare()
            self._control_plane()
            self._node(self._first)
            self._serve_names()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything: with the first process of its process namespace the kernel ends all others."""
        if self._init:
            with suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for number in (1, 2):
            _drop_cgroups(Node(number, self.folder).cgroup)

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs `command` in the cluster's namespaces."""
        enter = ["nsenter", "-t", str(self._init), "--net", "--mount", "--uts", "--pid"]
        found = ["env", f"KUBECONFIG={self.folder}/pki/admin.conf", f"PATH={bin_dir()}:{os.environ['PATH']}"]
        return [*enter, *found, *map(str, command)]

    def run(self, *command: str | Path, timeout_s: float = 300, stdin: str | None = None) -> str:
        """What it wrote.

        Raises:
            RuntimeError: it failed; the message has its last words.
        """
        done = subprocess.run(
            self.inside(command), input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode != 0:
            words = " ".join(map(str, command))[:200]
            raise RuntimeError(f"{words}: {(done.stderr or done.stdout).strip()[-1500:]}")
        return done.stdout

    def kubectl(self, *arguments: str | Path, timeout_s: float = 300, stdin: str | None = None) -> str:
        return self.run("kubectl", *arguments, timeout_s=timeout_s, stdin=stdin)

    def add_node(self) -> str:
        node = Node(2, self.folder)
        self._node(node)
        return node.name

    def install_operator(self, namespace: str) -> None:
        """KubeRay from its own manifests, with the program of the cache as its image."""
        overlay = self.folder / "kuberay"
        overlay.mkdir()
        shutil.copytree(module_dir(), overlay / "config")
        (overlay / "kustomization.yaml").write_text(
            (MANIFESTS / "kuberay.yaml").read_text().replace("NAMESPACE", namespace).replace("IMAGE", OPERATOR[:-2])
        )
        self.kubectl("create", "namespace", namespace)
        self.kubectl("apply", "--server-side", "-k", overlay)
        self.kubectl("-n", namespace, "rollout", "status", "deploy/kuberay-operator", "--timeout=280s")
        self._tell("KubeRay's operator is there")

    def enforce_policies(self) -> None:
        """NetworkPolicies hold from here on for what reaches the first node's pods; the bridge itself enforces none."""
        self.kubectl("apply", "-f", MANIFESTS / "policies.yaml")
        self.kubectl("-n", "kube-system", "rollout", "status", "deploy/policies", "--timeout=280s")
        # It asks for packets by nftables' `queue`, which some kernels lack; by iptables they come all the same. As it
        # does: before addresses are rewritten, and neither answers, nor the node's own, nor names.
        for rule in (
            "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-m owner --uid-owner 0 -j ACCEPT",
            "-p udp --dport 53 -j ACCEPT", f"-d {configs.PODS} -j NFQUEUE --queue-num {POLICIES_QUEUE}",
        ):  # fmt: skip
            self.run("iptables", "-t", "mangle", "-A", "POSTROUTING", *rule.split())
        self._tell("network policies are enforced")

    def define(self, folder: Path) -> None:
        """Kinds of objects whose operators are not here."""
        self.kubectl("apply", "--server-side", "-f", folder)

    def _tell(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:4.0f} s  {what}")

    def _prepare(self) -> None:
        for name in ("log", "cni", "images"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "resolv.conf").touch()
        (self.folder / "cni" / "10-pods.conflist").write_text(configs.network(self.folder))
        make_authority(self.folder / "pki", self._first.address)
        programs = {
            configs.PAUSE: "pause", COREDNS: "coredns", OPERATOR: "kuberay-operator", POLICIES: "kube-network-policies",
        }  # fmt: skip
        for tag, name in programs.items():
            write_program_image(self.folder / "images" / f"{name}.tar", tag, bin_dir() / name)
        write_borrowing_image(self.folder / "images" / "borrower.tar", BORROWER, self._environment)
        # However this process ends, the cluster ends with it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--pid"]
        command += ["--fork", "--kill-child", "--mount-proc"]
        process = self._spawn("namespaces", [*command, "bash", str(HERE / "namespaces.sh"), str(self.folder)])
        self._wait("the namespaces", (self.folder / "ready").exists)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._init = int(children[0])

    def _control_plane(self) -> None:
        keys, peer = f"{self.folder}/pki", "http://127.0.0.1:2380"
        self._inside(
            "etcd", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
            "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        )  # fmt: skip
        self._inside(
            "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={self._first.address}",
            "--bind-address=0.0.0.0", "--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", f"--client-ca-file={keys}/ca.crt",
            f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key",
            f"--service-account-key-file={keys}/accounts.pub",
            f"--service-account-signing-key-file={keys}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local", "--profiling=false",
            f"--kubelet-client-certificate={keys}/to-kubelet.crt", f"--kubelet-client-key={keys}/to-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true",
        )  # fmt: skip
        self._wait("the API server", lambda: self.kubectl("get", "--raw", "/readyz") == "ok", within_s=180)
        self._tell("the API server answers")
        for name in ("controller-manager", "scheduler"):
            own = f"{keys}/{name}.conf"
            more = [
                f"--service-account-private-key-file={keys}/accounts.key", f"--root-ca-file={keys}/ca.crt",
                "--use-service-account-credentials=true", "--allocate-node-cidrs=true",
                f"--cluster-cidr={configs.PODS}", "--service-cluster-ip-range=10.96.0.0/16",
            ] if name == "controller-manager" else []  # fmt: skip
            self._inside(
                f"kube-{name}", f"--kubeconfig={own}", f"--authentication-kubeconfig={own}",
                f"--authorization-kubeconfig={own}", "--leader-elect=false", "--bind-address=127.0.0.1", *more,
            )  # fmt: skip

    def _node(self, node: Node) -> None:
        home = self.folder / node.name
        home.mkdir()
        make_node(self.folder / "pki", node.name, node.address, self._first.address)
        (home / "containerd.toml").write_text(configs.containerd(node))
        (home / "kubelet.yaml").write_text(configs.kubelet(node))
        _make_cgroups(node.cgroup)
        self._inside("containerd", "-c", home / "containerd.toml", log=f"containerd-{node.name}")
        ctr: list[str | Path] = ["ctr", "-a", node.socket, "-n", "k8s.io"]
        self._wait("containerd", lambda: bool(self.run(*ctr, "version")))
        for archive in sorted((self.folder / "images").iterdir()):
            self.run(*ctr, "images", "import", archive)
        if self._image and node.number == 1:
            self.run(*ctr, "images", "import", self._image, timeout_s=1200)
            self._tell(f"{node.name} has {self._image.name}")
        self._inside(
            "kubelet", f"--config={home}/kubelet.yaml", f"--kubeconfig={self.folder}/pki/{node.name}.conf",
            f"--hostname-override={node.name}", f"--node-ip={node.address}", f"--root-dir={home}/kubelet",
            log=f"kubelet-{node.name}",
        )  # fmt: skip
        if node.number == 1:
            (self.folder / "proxy.yaml").write_text(configs.proxy(self.folder))
            self._inside("kube-proxy", f"--config={self.folder}/proxy.yaml")
        self.wait_for(f"node/{node.name}", "Ready")
        self._tell(f"{node.name} is ready")

    def _serve_names(self) -> None:
        self.kubectl("apply", "-f", MANIFESTS / "coredns.yaml")
        self.kubectl("-n", "kube-system", "rollout", "status", "deploy/coredns", "--timeout=280s")
        self._tell("names are answered")

    def wait_for(self, what: str, condition: str, *arguments: str, within_s: float = 280) -> None:
        """Until an object is there and has a condition."""
        command = ("wait", f"--for=condition={condition}", what, *arguments, "--timeout=20s")
        self._wait(f"{what} to be {condition}", lambda: bool(self.kubectl(*command)), within_s=within_s)

    def _wait(self, what: str, holds: Callable[[], bool], within_s: float = 120) -> None:
        deadline, last = time.monotonic() + within_s, ""
        while True:
            try:
                if holds():
                    return
            except RuntimeError as error:
                last = str(error)
            ended = [each.args for each in self._processes if each.poll() is not None]
            if time.monotonic() > deadline or ended:
                why = f"{ended[0]!r} has ended" if ended else f"not within {within_s:.0f} s"
                raise NotReady(f"Waited for {what}: {why}; logs are in {self.folder}/log. {last}")
            time.sleep(0.5)

    def _inside(self, program: str, *arguments: str | Path, log: str = "") -> None:
        self._spawn(log or program, self.inside([program, *arguments]))

    def _spawn(self, name: str, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log" / f"{name}.log").open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._processes.append(process)
        return process


def _controllers() -> list[Path]:
    """The hierarchies of cgroup v1."""
    return [each.parent for each in Path("/sys/fs/cgroup").glob("*/tasks")]


def _make_cgroups(name: str) -> None:
    for root in _controllers():
        folder = root / name.lstrip("/")
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # a new one has none, and takes no process
            if (root / setting).exists():
                (folder / setting).write_text((root / setting).read_text())


def _drop_cgroups(name: str) -> None:
    for root in _controllers():
        folder = root / name.lstrip("/")
        if not folder.exists():
            continue
        for each in sorted([folder, *(one for one in folder.rglob("*") if one.is_dir())], reverse=True):
            with suppress(OSError):  # what still ends
                each.rmdir()
