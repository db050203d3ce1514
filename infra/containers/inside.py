"""What lies in an image: run by check.sh inside of it (as root, who sees all), and on its metadata outside.

Of the standard library alone. One line a finding, beginning with `ok`, `BAD` or `!!`; status 1 where one is BAD.
"""

import argparse
import importlib.metadata
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SITE = "/opt/linewatch"
SBOM = Path(SITE, "share/linewatch/sbom.cdx.json")
NOT_LOOKED_AT = ("/proc", "/sys", "/dev", "/tmp")
TEXT_BYTES = 4 << 20
# A key has lines of base64 below its head: code that names the head is none.
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}")
TOKENS = re.compile(
    rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bpypi-AgE[A-Za-z0-9_-]{50}|\bxox[abp]-[0-9]{8,}-"
    rb"|://[^/\s:@'\"<>{}$%*]+:[^/\s:@'\"<>{}$%*]{6,}@[a-z0-9][a-z0-9.-]+\.[a-z]{2,}"
)
# As documentation writes it.
PLACEHOLDER = re.compile(rb"://((my)?user(name)?:(my)?pass(word|wd)?|REDACTED:REDACTED)@", re.IGNORECASE)
NAMES = re.compile(
    r"(^|/)(pip\.conf|\.netrc|\.pypirc|\.npmrc|\.git-credentials|id_(rsa|ed25519|ecdsa)|direct_url\.json)$"
)
SECRET_VARIABLE = re.compile(r"(SECRET|TOKEN|PASSWORD|ACCESS_KEY)", re.IGNORECASE)


def files() -> Iterator[Path]:
    """Every regular file of the image."""
    for folder, folders, names in os.walk("/"):
        folders[:] = [one for one in folders if os.path.join(folder, one) not in NOT_LOOKED_AT]
        for name in names:
            path = Path(folder, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path


def known_hosts(data: bytes, hosts: list[bytes]) -> list[str]:
    return [host.decode() for host in hosts if host in data]


def metadata(path: Path, hosts: list[bytes]) -> list[str]:
    """What the image says of itself: variables, labels, the commands that it was made by."""
    data = path.read_bytes()
    told, _ = json.JSONDecoder().raw_decode(data.decode())
    variables = [one.partition("=") for one in told[0]["Config"].get("Env") or []]
    found = [f"BAD  variable {name} has a value" for name, _, value in variables
             if SECRET_VARIABLE.search(name) and value and name not in ("GPG_KEY",)]  # fmt: skip
    found += [f"BAD  its metadata names {host}" for host in known_hosts(data, hosts)]
    if TOKENS.search(data) or PRIVATE_KEY.search(data):
        found.append("BAD  its metadata has a key or a token")
    if "Healthcheck" not in data.decode():
        found.append("BAD  no health check")
    return found or ["ok   metadata: no secret and no host that the build was told of; a health check"]


def content(hosts: list[bytes]) -> list[str]:
    """Secrets, hosts, and files that could give another user's rights."""
    found, looked = [], 0
    for path in files():
        looked += 1
        mode = path.lstat().st_mode
        name = str(path)
        if NAMES.search(name):
            found.append(f"BAD  {name}")
        if name.startswith(SITE) and mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH):
            found.append(f"BAD  {name} has mode {stat.S_IMODE(mode):o}")
        if path.stat().st_size > TEXT_BYTES:
            continue
        data = path.read_bytes()
        # A library that tests itself has a key for that, which everybody knows.
        if PRIVATE_KEY.search(data) and not data.startswith(b"\x7fELF"):
            found.append(f"BAD  {name} holds a private key")
        for token in TOKENS.finditer(data):
            if not PLACEHOLDER.match(token[0]):
                found.append(f"BAD  {name} holds what looks like a token: {token[0][:12].decode(errors='replace')}...")
        found += [f"BAD  {name} names {host}" for host in known_hosts(data, hosts)]
    told = ", ".join(host.decode() for host in hosts) or "the build was told of none"
    return found or [f"ok   {looked} files: no private key, token, password in a URL or pip.conf; no host ({told})"]


def writable() -> list[str]:
    """The image's user owns nothing but its working folder."""
    owned = [str(path) for path in files() if path.lstat().st_uid == 10001]
    return [f"BAD  the user owns {path}" for path in owned[:5]] or ["ok   the user owns no file of the image"]


def sbom() -> list[str]:
    """It names what is installed, no more and no less."""
    listed = {(one["name"].lower(), one["version"]) for one in json.loads(SBOM.read_text())["components"]}
    installed = {
        (str(one.metadata["Name"]).lower(), one.version)
        for one in importlib.metadata.distributions(path=[str(next(Path(SITE, "lib").glob("python3*/site-packages")))])
    }
    if listed != installed:
        return [f"BAD  the SBOM and what is installed differ: {sorted(listed ^ installed)[:5]}"]
    return [f"ok   the SBOM names all {len(listed)} distributions ({SBOM})"]


def cuda(variant: str) -> list[str]:
    """A CPU image has no CUDA libraries where its index gave CPU wheels: say what it gave."""
    site = next(Path(SITE, "lib").glob("python3*/site-packages"))
    folders = [site / one for one in ("nvidia", "triton") if (site / one).exists()]
    folders += (site / "torch/lib").glob("*cuda*")
    size = sum(file.stat().st_size for one in folders for file in [one, *one.rglob("*")] if file.is_file())
    torch = re.search(r"__version__ = '([^']+)'", (site / "torch/version.py").read_text())
    what = f"torch {torch[1] if torch else '?'}, {size // 1_000_000} MB of CUDA libraries"
    if variant == "cuda":
        return [f"ok   {what}" if folders else f"BAD  the CUDA variant: {what}"]
    if not folders:
        return [f"ok   the CPU variant: {what}"]
    return [
        f"!!   the CPU variant has {what}: its index gave the CUDA build. TORCH_INDEX_URL names PyTorch's CPU wheels"
    ]


def starts() -> list[str]:
    """KubeRay's probes need bash and wget; torch, Ray, Kafka and OpenVINO are there whole."""
    found = []
    parts = "import torch, ray.serve, ray.train, kafka, openvino, minio, jobs.cli"
    for words in (["bash", "-c", "wget --version || wget --help"], [f"{SITE}/bin/python", "-c", parts]):
        told = subprocess.run(words, capture_output=True, text=True, check=False)
        if told.returncode:
            found.append(f"BAD  {' '.join(words)[:60]}: {(told.stderr.strip().splitlines() or ['no words'])[-1]}")
    return found or ["ok   bash, wget; torch, ray, kafka, openvino and minio import"]


def main() -> int:
    words = argparse.ArgumentParser()
    words.add_argument("--metadata", type=Path, help="`inspect` and `history` of the image, in one file")
    words.add_argument("--hosts", default="", help="comma-separated")
    words.add_argument("--variant", default="cpu")
    asked = words.parse_args()
    hosts = [host.encode() for host in asked.hosts.split(",") if host]
    if asked.metadata:
        found = metadata(asked.metadata, hosts)
    else:
        found = [*content(hosts), *writable(), *sbom(), *starts(), *cuda(asked.variant)]
    sys.stdout.write("".join(f"  {line}\n" for line in found))
    return any(line.startswith("BAD") for line in found)


if __name__ == "__main__":
    sys.exit(main())
