"""Apache Kafka's jars: fetched once by Maven into the per-user cache."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from infra.local.cache import cache_dir, filling
from infra.local.errors import FetchFailed
from infra.local.program import Say

POM = Path(__file__).with_name("pom.xml")
KAFKA_VERSION = "4.3.1"
FETCH_WITHIN_S = 900


def jars_dir() -> Path:
    """Named for what is in it: another version of the pom gets another folder."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    return cache_dir() / f"kafka-{KAFKA_VERSION}-{digest}"


def have_jars() -> bool:
    # The folder is moved into place whole, so that it is there means that all of it is.
    return jars_dir().is_dir()


def ensure_jars(say: Say) -> Path:
    """The folder of jars; fetches them where they are not there yet."""
    target = jars_dir()
    if have_jars():
        return target
    with filling(target.name) as cache:
        if have_jars():
            return target
        say(f"Fetching Apache Kafka {KAFKA_VERSION} with Maven: 43 MB, about 10 seconds, only this once")
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetching-") as scratch:
            _fetch(Path(scratch))
            (Path(scratch) / "jars").rename(target)
    return target


def _fetch(scratch: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise FetchFailed("Maven (`mvn`) is not on PATH, and Apache Kafka's jars are not in the cache.")
    # A copy of the pom: Maven must not want to write next to the original, which may be read-only.
    shutil.copy(POM, scratch / "pom.xml")
    try:
        done = subprocess.run(
            [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={scratch / 'jars'}"],
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchFailed(
            f"Maven did not fetch Apache Kafka within {FETCH_WITHIN_S} s: is the network slow?"
        ) from error
    if done.returncode != 0 or not list((scratch / "jars").glob(f"kafka_2.13-{KAFKA_VERSION}.jar")):
        complaint = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][:3]
        raise FetchFailed(
            "Maven could not fetch Apache Kafka's jars; it said: " + " / ".join(complaint) + "\n"
            "Check the network (Maven's proxy and mirrors are set in ~/.m2/settings.xml), or use `--kafka tansu`."
        )


def find_java() -> tuple[str | None, int]:
    """The newest-looking `java`: its path and major version, (None, 0) without any.

    JAVA_HOME comes first, but one that is too old does not hide a newer one on PATH.
    """
    home = os.environ.get("JAVA_HOME", "")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates += [os.path.abspath(found)] if (found := shutil.which("java")) else []
    best: tuple[str | None, int] = (None, 0)
    for candidate in candidates:
        version = _java_version(candidate)
        if version > best[1]:
            best = (candidate, version)
    return best


def _java_version(java: str) -> int:
    """17 for `openjdk version "17.0.15"`, 8 for the older `java version "1.8.0_402"`, 0 where it does not run."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    return int(match[1]) if match else 0
