"""Whatever can't become an event becomes a dead letter, and a fix delivers it."""

import hashlib
import threading
import time

import pytest

from jobs.fitting.datasets import discover
from jobs.line.letters import pending_letters, replay_letters
from pipeline.contracts.deadletters import Letter
from pipeline.kafka.clients import make_producer
from tests.end_to_end import hostile
from tests.end_to_end.plant import Plant, wait_for

pytestmark = [pytest.mark.servers, pytest.mark.ray, pytest.mark.apache]


def test_each_hostile_message_becomes_a_dead_letter_and_a_fix_delivers_it(apache_plant: Plant) -> None:
    good = discover(apache_plant.images / "flange")[0].path.read_bytes()
    cases = hostile.cases(good)
    ledger = apache_plant.ledger()
    camera = threading.Thread(target=lambda: apache_plant.send(ledger, "flange", fps=20, camera="/hostile/cam"))
    camera.start()
    producer = make_producer(apache_plant.settings)
    for case in cases:  # between the camera's good images, and in the same partition
        producer.send(apache_plant.settings.topics.images, key=b"/hostile/cam", value=case.value, headers=case.headers)
        time.sleep(0.05)
    producer.close()
    camera.join()
    wait_for("the dead letters", lambda: len(pending_letters(apache_plant.settings)) >= len(cases))
    letters = pending_letters(apache_plant.settings)
    assert sorted(letter.error_class for letter in letters) == sorted(case.error_class for case in cases)
    assert all(letter.message for letter in letters)
    wait_for("events of the good images", lambda: ledger.times_seen.keys() >= ledger.sent.keys())

    fixed = [letter for letter in letters if letter.error_class in ("ClaimMissing", "ProductUnknown")]
    fix(apache_plant, good)
    assert replay_letters(apache_plant.settings, fixed, apache_plant.store, exactly_once=True) == 2
    wait_for("the delivered letters", lambda: ledger.times_seen.keys() >= {letter.image_id for letter in fixed})
    left = {place(letter) for letter in pending_letters(apache_plant.settings)}
    assert left == {place(letter) for letter in letters} - {place(letter) for letter in fixed}
    time.sleep(1.0)
    ledger.close()
    assert ledger.doubled == 0


def fix(plant: Plant, good: bytes) -> None:
    """Upload the missing object; give the unknown product a model."""
    sha256 = hashlib.sha256(good).hexdigest()
    plant.store.put(f"images/elsewhere/{sha256}", good)
    bundle = plant.registry.bundle("flange", plant.versions["flange"])
    adopted = type(bundle)(bundle.manifest.model_copy(update={"product": "newcomer"}), bundle.weights)
    plant.registry.publish(adopted)
    plant.registry.promote("newcomer", adopted.manifest.version, None)


def place(letter: Letter) -> tuple[int, int]:
    return letter.record.partition, letter.record.offset
