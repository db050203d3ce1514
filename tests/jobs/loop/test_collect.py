"""What people agree on reaches the dataset, once, and leaves it again when they change their minds."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from jobs.cli import main
from jobs.fitting.datasets import Datasets
from jobs.fitting.datasets.masks import read_mask
from model import ModelBundle
from pipeline.contracts.events import InspectionEvent
from tests.conftest import Plant
from tests.jobs.inspected_line import GOOD, SPOTS, InspectedLine, inspected_line
from tests.jobs.line.test_stream_jobs import as_environment
from tests.pipeline.environment import clean_environment, no_settings_in_the_environment

__all__ = ["clean_environment"]
pytestmark = [pytest.mark.servers, pytest.mark.apache]


@pytest.fixture(scope="module")
def line(apache: Plant, tiny_bundle: ModelBundle) -> Iterator[InspectedLine]:
    def eventually(holds: Callable[[], object], *, within_s: float = 60.0) -> None:
        import time

        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    with no_settings_in_the_environment():
        yield inspected_line(apache, tiny_bundle, eventually)


def run(*words: str) -> Result:
    done = CliRunner().invoke(main, ["feedback", *words])
    assert done.exit_code == 0, done.output
    return done


def test_good_parts_may_be_fitted_on_and_defective_ones_judge(
    line: InspectedLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    as_environment(line.settings, line.plant, monkeypatch)
    monkeypatch.setenv("LINEWATCH_HISTORY__URL", f"sqlite:///{tmp_path}/history.db")
    live = {event.image_id: event for event in line.live().values() if event.product == "bottle"}
    by_number: list[InspectionEvent] = [live[f"img-{n:02d}"] for n in range(GOOD)]
    datasets = Datasets(line.store)
    assert "nothing is to be collected" in run("collect", "bottle").output
    for event in by_number[:SPOTS]:
        run("give", event.event_id, "defect", "--by", "anna", "--kind", "Deep scratch", "--box", "30,31,20,10")
    for event in by_number[SPOTS:]:
        run("give", event.event_id, "good", "--by", "anna")
    run("give", by_number[SPOTS].event_id, "defect", "--by", "bert")  # they differ
    run("give", by_number[SPOTS + 1].event_id, "unsure", "--by", "bert")
    told = run("collect", "bottle").output
    first = datasets.latest("bottle")
    assert len(first.good) == GOOD - SPOTS - 1
    assert {Path(item.name).stem for item in first.labelled} == {event.event_id for event in by_number[:SPOTS]}
    assert {item.kind for item in first.labelled} == {"Deep_scratch"}
    mask = datasets.mask("bottle", first.labelled[0])
    assert mask is not None
    assert np.argwhere(read_mask(mask)).min(0).tolist() == [31, 30]
    assert "1 part does not count: people differ" in told

    assert "nothing is to be collected" in run("collect", "bottle").output
    assert datasets.latest("bottle").digest == first.digest, "collected again it is the same"

    run("withdraw", by_number[SPOTS].event_id, "--by", "bert")  # they agree now
    run("withdraw", by_number[SPOTS + 2].event_id, "--by", "anna")
    run("give", by_number[0].event_id, "good", "--by", "anna")  # it was only dust
    run("give", by_number[SPOTS + 3].event_id, "defect", "--by", "anna")
    told = run("collect", "bottle").output
    second = datasets.latest("bottle")
    assert "1 image is taken out again" in told
    stems = {Path(item.name).stem: item for item in second.items}
    good = {Path(item.name).stem for item in second.good}
    assert by_number[SPOTS].event_id in good
    assert by_number[SPOTS + 2].event_id not in stems
    assert stems[by_number[0].event_id].kind == "good"
    assert by_number[0].event_id not in good, "what has judged goes on judging"
    assert stems[by_number[SPOTS + 3].event_id].kind == "defect"
    assert by_number[SPOTS + 3].event_id not in good
    assert "nothing is to be collected" in run("collect", "bottle").output
