"""What topics are made with, without a broker."""

from pipeline.kafka.topics import topic_specs
from pipeline.settings import Settings


def test_one_copy_is_the_default_and_how_many_are_in_sync_the_brokers_own_matter() -> None:
    specs = topic_specs(Settings.load())
    assert len(specs) == 6
    assert {spec.replication_factor for spec in specs} == {1}
    assert not any("min.insync.replicas" in spec.topic_configs for spec in specs)


def test_every_topic_gets_the_copies_that_settings_ask_for() -> None:
    specs = topic_specs(Settings.from_values({"topics": {"replication_factor": 3, "min_insync_replicas": 2}}))
    assert {spec.replication_factor for spec in specs} == {3}
    assert {spec.topic_configs["min.insync.replicas"] for spec in specs} == {"2"}
    kept = {spec.name: spec.topic_configs for spec in specs}
    assert kept["linewatch.releases"]["cleanup.policy"] == "compact"
    assert kept["linewatch.images"]["max.message.bytes"] == "16777216"


def test_every_topic_goes_by_the_brokers_clocks() -> None:
    clocks = [spec.topic_configs["message.timestamp.type"] for spec in topic_specs(Settings.load())]
    assert clocks == ["LogAppendTime"] * 6
