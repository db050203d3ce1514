"""`linewatch local`, as a person types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infra.local import LocalServers
from jobs.cli.local import local


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("LINEWATCH_LOCAL__DATA_DIR", str(data_dir))
    return lambda *words, **more: CliRunner().invoke(local, list(words), **more)


@pytest.mark.servers
def test_a_day_with_local_servers(run: Callable[..., Result], data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_LOCAL__KAFKA", "tansu")
    monkeypatch.setenv("LINEWATCH_LOCAL__S3", "seaweedfs")

    up = run("up")
    assert up.exit_code == 0, up.output
    assert "Kafka: Tansu 0.6 (as asked for) at 127.0.0.1:" in up.output
    assert f'eval "$(linewatch local env --data-dir {data_dir})"' in up.output
    servers = LocalServers.attach(data_dir)
    assert servers is not None

    again = run("up")
    assert again.exit_code == 0
    assert again.output.startswith("Running already. Kafka: Tansu")
    swapped = run("up", "--s3", "minio")
    assert swapped.exit_code == 1
    assert "first stop it with" in swapped.output

    status = run("status")
    assert status.exit_code == 0
    assert "tansu 0.6" in status.output
    assert servers.s3_endpoint in status.output

    env = run("env")
    assert env.stdout.splitlines() == [f"export {name}={value}" for name, value in servers.environment().items()]
    assert "secret key" in env.stderr
    for shown in (up, again, status):
        assert servers.secret_key not in shown.output

    assert run("down").output == "Stopped.\n"
    assert run("status").exit_code == 1
    assert run("env").exit_code == 1
    assert run("down").output == f"Nothing was running in {data_dir}.\n"

    assert run("reset", input="n\n").exit_code == 1
    assert (data_dir / "servers.json").exists()
    assert run("reset", "--yes").exit_code == 0
    assert not data_dir.exists()


def test_before_the_first_up(run: Callable[..., Result], data_dir: Path) -> None:
    status = run("status")
    assert status.exit_code == 1
    assert status.output == (
        f"Error: No servers have been started in {data_dir}. Start them with `linewatch local up`.\n"
    )
    assert run("down").exit_code == 0
    assert run("reset", "--yes").exit_code == 0


def test_what_cannot_run_is_one_clear_message(run: Callable[..., Result], bare_machine: Path) -> None:
    assert bare_machine.is_dir()
    for words, missing in ((("--kafka", "apache"), "no java found"), (("--s3", "minio"), "no minio server program")):
        refused = run("up", *words)
        assert refused.exit_code == 1
        assert refused.output.startswith("Error: ")
        assert missing in refused.output
        assert "Traceback" not in refused.output
    build = run("build-minio")
    assert build.exit_code == 1
    assert "Install Go" in build.output


def test_a_folder_with_other_things_is_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for command in ("up", "reset"):
        words = ["--yes"] if command == "reset" else []
        refused = run(command, *words, "--data-dir", str(tmp_path))
        assert refused.exit_code == 1
        assert refused.output.startswith("Error: ")
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize("command", sorted(local.commands))
def test_every_command_explains_itself_with_an_example(run: Callable[..., Result], command: str) -> None:
    shown = run(command, "--help")
    assert shown.exit_code == 0
    assert f"linewatch local {command}" in shown.output
