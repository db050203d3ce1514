"""Topics that can't take what settings ask of them are refused, or warned of, before anything is sent."""

import pytest

from pipeline.errors import TopicsUnfit
from pipeline.kafka.topics import topic_specs
from pipeline.kafka.topics_fit import fitting, judged
from pipeline.settings import Settings
from tests.conftest import Plant
from tests.pipeline.brokers import both, prepared

SETTINGS = Settings.from_values({})


def configs(**changes: dict[str, str]) -> dict[str, dict[str, str]]:
    made = {spec.name: dict(spec.topic_configs) for spec in topic_specs(SETTINGS)}
    for name in ("feedback", "releases"):
        del made[f"linewatch.{name}"]
    for name, change in changes.items():
        made[f"linewatch.{name}"] |= {key.replace("_", "."): value for key, value in change.items()}
    return made


def warned(**changes: dict[str, str]) -> list[str]:
    return judged(SETTINGS, configs(**changes), {})


def test_topics_as_setup_makes_them_take_everything() -> None:
    assert warned() == []
    assert judged(SETTINGS, {"linewatch.images": {}}, {}) == [], "a broker that tells nothing"


@pytest.mark.parametrize(
    ("topic", "otherwise"),
    [
        ("images", "cameras that send images up to limits.inline_bytes are refused"),
        ("events", "an image with many regions becomes a dead letter, OutputTooLarge"),
        ("masks", "larger masks and heat maps go through S3"),
        ("deadletters", "letters of larger images have their value in S3"),
    ],
)
def test_a_topic_that_takes_less_is_warned_of_with_what_happens_instead(topic: str, otherwise: str) -> None:
    (warning,) = warned(**{topic: {"max_message_bytes": "5000"}})
    assert warning.startswith(f"linewatch.{topic} takes messages of 5000 bytes, fewer than ")
    assert otherwise in warning
    assert warning.endswith("Its max.message.bytes says so")


@pytest.mark.parametrize(("topic", "size"), [("events", "4095"), ("masks", "511")])
def test_a_topic_that_takes_no_image_s_message_is_refused(topic: str, size: str) -> None:
    with pytest.raises(TopicsUnfit, match=f"linewatch.{topic} takes messages of {size} bytes, and no image's fits"):
        warned(**{topic: {"max_message_bytes": size}})


@pytest.mark.parametrize("topic", ["images", "events", "masks", "deadletters"])
def test_a_topic_that_keeps_a_camera_s_last_message_alone_is_refused(topic: str) -> None:
    with pytest.raises(TopicsUnfit, match=f"linewatch.{topic} has cleanup.policy=compact,delete"):
        warned(**{topic: {"cleanup_policy": "compact,delete"}})


def test_replicas_without_a_partition_are_warned_of() -> None:
    settings = Settings.from_values({"serving": {"replicas": 3}})
    assert judged(settings, {}, {"linewatch.images": 3}) == []
    (warning,) = judged(settings, {}, {"linewatch.images": 2})
    assert warning == "linewatch.images has 2 partitions for up to 3 replicas: some have nothing to do"


@pytest.mark.servers
@both
def test_topics_that_were_just_made_fit_on_a_real_broker(plant: Plant, exactly_once: bool) -> None:
    settings = prepared(plant)
    assert fitting(settings) == []
    missing = settings.model_copy(update={"topics": settings.topics.model_copy(update={"prefix": "never-made"})})
    with pytest.raises(TopicsUnfit, match=r"topic never-made\.images is gone"):
        fitting(missing)
    assert exactly_once == (plant.kind.startswith("apache"))
