from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local.apache_kafka import find_apache
from infra.local.choice import choose_kafka, choose_s3
from infra.local.doctor import server_report
from infra.local.errors import CannotRun
from infra.local.kafka_jars import POM, jars_dir
from infra.local.minio_server import cached_minio, find_minio
from infra.local.program import Found, Missing

Put = Callable[[str, str], Path]

MAVEN = """
for word in "$@"; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done
mkdir "$out" && sleep 0.2 && touch "$out/kafka_2.13-4.3.1.jar" && echo x >> "$(dirname "$0")/fetches"
"""
MINIO = """
case "$1" in
  --version) echo "minio version RELEASE.2025-09-07T16-13-09Z (commit-id=x)";;
  server) echo "  --console-address value";;
esac
"""


def java(version: str) -> str:
    return f"""echo 'openjdk version "{version}" 2025-04-15' >&2"""


def quietly(_: str) -> None: ...


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "no java found"),
        ({"java": java("17.0.15")}, "java 17 found, but no mvn"),
        ({"java": java("11.0.2"), "mvn": MAVEN}, "java 11 is older than 17"),
        ({"java": java("1.8.0_402"), "mvn": MAVEN}, "java 8 is older than 17"),
        ({"java": java("17"), "mvn": "echo Could not resolve host; exit 1"}, "it said: Could not resolve host"),
    ],
)
def test_without_what_apache_kafka_needs_tansu_runs_and_says_why(
    fake_program: Put, programs: dict[str, str], reason: str
) -> None:
    for name, script in programs.items():
        fake_program(name, script)
    chosen = choose_kafka("auto", None, quietly)
    assert chosen.program.kind == "tansu"
    assert reason in chosen.found.why
    with pytest.raises(CannotRun, match="Apache Kafka cannot run here"):
        choose_kafka("apache", None, quietly)


def test_apache_kafka_runs_where_java_and_maven_are_found(fake_program: Put) -> None:
    java_path = fake_program("java", java("21.0.1"))
    fake_program("mvn", MAVEN)
    said: list[str] = []
    chosen = choose_kafka("auto", None, said.append)
    assert (chosen.program.kind, chosen.found.why) == ("apache", "java 21 and mvn found")
    assert chosen.found.binary == str(java_path)
    assert [path.name for path in jars_dir().iterdir()] == ["kafka_2.13-4.3.1.jar"]
    assert "43 MB" in said[0]
    choose_kafka("auto", None, said.append)
    assert len(said) == 1, "fetched once only"


def test_the_cached_jars_are_enough_without_maven(fake_program: Put) -> None:
    fake_program("java", java("17.0.15"))
    jars_dir().mkdir(parents=True)
    assert find_apache() == Found(
        binary=str(fake_program("java", java("17.0.15"))), version="4.3.1", why="java 17 found, jars in cache"
    )


def test_an_old_java_home_does_not_hide_a_newer_java(
    fake_program: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = fake_program("java", java("17.0.15"))
    old = tmp_path / "jdk8" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text(f"#!/bin/sh\n{java('1.8.0')}\n")
    old.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk8"))
    fake_program("mvn", MAVEN)
    found = find_apache()
    assert isinstance(found, Found)
    assert found.binary == str(newer)


def test_the_pom_names_the_version_that_is_announced() -> None:
    assert "<version>4.3.1</version>" in POM.read_text()


def test_minio_is_preferred_when_its_server_is_found(fake_program: Put) -> None:
    assert choose_s3("auto", None, quietly).program.kind == "seaweedfs"
    fake_program("minio", MINIO)
    chosen = choose_s3("auto", None, quietly)
    assert (chosen.program.kind, chosen.found.version, chosen.found.why) == ("minio", "2025-09-07", "binary on PATH")


def test_another_program_called_minio_is_not_taken_for_the_server(fake_program: Put) -> None:
    fake_program("minio", 'echo "minio version 7.2 of a client"')
    found = find_minio()
    assert isinstance(found, Missing)
    assert "is not the MinIO server" in found.why
    with pytest.raises(CannotRun, match="linewatch local build-minio"):
        choose_s3("minio", None, quietly)
    cached_minio().parent.mkdir(parents=True)
    cached_minio().write_text("")
    cached_minio().chmod(0o755)
    assert find_minio() == Found(str(cached_minio()), "2026-02-12", "binary in cache")


def test_a_folder_stays_with_the_servers_that_its_data_is_in(fake_program: Put) -> None:
    fake_program("java", java("17.0.15"))
    fake_program("mvn", MAVEN)
    fake_program("minio", MINIO)
    kafka, s3 = choose_kafka("auto", "tansu", quietly), choose_s3("auto", "seaweedfs", quietly)
    assert (kafka.program.kind, kafka.found.why) == ("tansu", "this folder's data is in it")
    assert (s3.program.kind, s3.found.why) == ("seaweedfs", "this folder's data is in it")


def test_a_folder_whose_server_cannot_run_any_more_gets_the_other_and_is_told(bare_machine: Path) -> None:
    assert bare_machine.is_dir()
    said: list[str] = []
    assert choose_kafka("auto", "apache", said.append).program.kind == "tansu"
    assert said == ["This folder's data so far is in Apache Kafka; Tansu starts without it (Apache Kafka's is kept)"]


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(CannotRun, match="'redpanda': choose one of auto, apache, tansu"):
        choose_kafka("redpanda", None, quietly)  # type: ignore[arg-type]


def test_the_report_says_how_to_get_what_is_missing(bare_machine: Path) -> None:
    assert bare_machine.is_dir()
    report = {finding.what.split(" (")[0]: finding for finding in server_report()}
    assert [name for name, finding in report.items() if finding.found] == ["Tansu", "SeaweedFS"]
    assert all(bool(finding.how_to_get) != finding.found for finding in report.values())
    assert "openjdk-17" in report["java"].how_to_get
    assert "build-minio" in report["MinIO"].how_to_get
