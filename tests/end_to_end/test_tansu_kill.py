"""A replica dies in mid-replay, on the fallback broker."""

from pathlib import Path

import pytest

from model import ModelBundle
from tests.end_to_end.conftest import Plants
from tests.end_to_end.kill import kill_in_mid_replay
from tests.end_to_end.plant import plant, start_up

pytestmark = [pytest.mark.servers, pytest.mark.ray]


def test_a_killed_replica_loses_nothing_and_doubles_only_equal_event_ids(
    plants: Plants, images: Path, tiny_bundle: ModelBundle, tmp_path: Path
) -> None:
    plants.close()
    with plant(tmp_path / "plant", images, kafka="tansu") as tansu:
        start_up(tansu, ready=tiny_bundle)
        assert not tansu.broker.aborts_hidden
        ledger = kill_in_mid_replay(tansu, images=300)
    assert ledger.missing == 0
    assert ledger.without_mask() == 0
    assert all(len(identifiers) == 1 for identifiers in ledger.event_ids.values())
