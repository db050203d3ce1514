"""The bench of the stream: how rates are told, and one simulated worker on a real broker."""

import os
from contextlib import closing

import pytest

from jobs.bench.stream import SubjectProcess, fresh, produce, steady
from pipeline.errors import ServingError
from tests.conftest import Plant


def commits(*found: tuple[float, int]) -> list[dict[str, float]]:
    return [{"at": at, "images": images} for at, images in found]


def test_a_rate_is_of_the_time_while_all_workers_were_at_work() -> None:
    early = commits((0, 10), (1, 10), (2, 10), (3, 10))
    late = commits((1, 50), (2, 20), (9, 20))
    assert steady([early]) == 10
    assert steady([early, late]) == pytest.approx((10 + 10 + 20) / 2)  # from 1 to 3
    assert steady([commits((0, 10))]) == 0


@pytest.mark.servers
@pytest.mark.apache
def test_a_simulated_device_takes_its_time_and_every_image_is_committed(
    apache: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = apache.settings(stream={"batch_images": 4, "transaction_images": 4})
    apache.store(base)
    for name in ("access_key", "secret_key"):
        secret = getattr(base.s3, name)
        monkeypatch.setitem(os.environ, f"LINEWATCH_S3__{name.upper()}", secret.get_secret_value())
    settings = fresh(base)
    assert settings.topics.prefix != base.topics.prefix
    produce(settings, [b"x" * 100], 60)
    with closing(SubjectProcess(settings, 0, 20.0)) as worker:
        worker.order(stream=60)
        found = worker.answer()
    assert sum(one["images"] for one in found) == 60
    assert all(0 <= age < 600 for one in found for age in one["ages_s"])
    assert steady([found]) <= 1000 / 20 * 1.25, "no faster than the device"


def test_a_measured_process_that_ends_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.settings import Settings

    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ServingError, match="a measured process ended"):
        SubjectProcess(Settings.from_values({}), 0)
