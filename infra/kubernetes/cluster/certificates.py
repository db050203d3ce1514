"""Keys, certificates and kubeconfigs of a cluster that lives for a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SERVER = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1,IP:10.96.0.1"
_CLIENTS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
}


def make_authority(folder: Path, address: str) -> None:
    """The authority, the API server's certificate, the key of service accounts, and the control plane's kubeconfigs."""
    folder.mkdir(parents=True)
    _key(folder, "ca")
    _openssl(folder, "req -x509 -new -key ca.key -subj /CN=linewatch-test -days 2 -out ca.crt")
    _openssl(folder, "genrsa -out accounts.key 2048")
    _openssl(folder, "rsa -in accounts.key -pubout -out accounts.pub")
    _issue(folder, "apiserver", "/CN=kube-apiserver", f"{_SERVER},IP:{address}")
    _issue(folder, "to-kubelet", "/O=system:masters/CN=to-kubelet")
    for name, subject in _CLIENTS.items():
        _issue(folder, name, subject)
        _kubeconfig(folder, name, address)


def make_node(folder: Path, node: str, node_address: str, address: str) -> None:
    """Certificate and kubeconfig of a node's kubelet."""
    _issue(folder, node, f"/O=system:nodes/CN=system:node:{node}", f"DNS:{node},IP:{node_address},IP:127.0.0.1")
    _kubeconfig(folder, node, address)


def _key(folder: Path, name: str) -> None:
    _openssl(folder, f"ecparam -name prime256v1 -genkey -noout -out {name}.key")


def _issue(folder: Path, name: str, subject: str, names: str = "") -> None:
    _key(folder, name)
    _openssl(folder, f"req -new -key {name}.key -subj {subject} -out {name}.csr")
    usage = "extendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature,keyEncipherment\n"
    (folder / f"{name}.ext").write_text(usage + (f"subjectAltName={names}\n" if names else ""))
    authority = "-CA ca.crt -CAkey ca.key -CAcreateserial"
    _openssl(folder, f"x509 -req -in {name}.csr {authority} -days 2 -extfile {name}.ext -out {name}.crt")


def _kubeconfig(folder: Path, name: str, address: str) -> None:
    (folder / f"{name}.conf").write_text(
        f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "https://{address}:6443", certificate-authority: {folder}/ca.crt}}}}]
users: [{{name: u, user: {{client-certificate: {folder}/{name}.crt, client-key: {folder}/{name}.key}}}}]
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
current-context: c
"""
    )


def _openssl(folder: Path, arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True, timeout=120)
