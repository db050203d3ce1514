from __future__ import annotations

from pathlib import Path

from infra.local.logs import LARGE_BYTES, last_lines, rotate_if_large


def test_a_large_log_is_put_aside_and_a_small_one_kept(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    log.write_bytes(b"x" * (LARGE_BYTES + 1))
    rotate_if_large(log)
    assert not log.exists()
    assert (tmp_path / "kafka.log.1").stat().st_size == LARGE_BYTES + 1
    log.write_text("small")
    rotate_if_large(log)
    assert log.read_text() == "small"


def test_the_end_of_a_log_of_any_size(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    assert last_lines(log) == "(no log)"
    log.write_text("\n".join(f"line {number}" for number in range(100_000)))
    assert last_lines(log, 2) == "  line 99998\n  line 99999"
