"""What a person must mend is told apart from what waiting alone mends."""

import pytest
from kafka import errors

from pipeline.errors import BrokerRefused, BrokerUnavailable
from pipeline.kafka.clients import broker_answers
from pipeline.kafka.lookout import held_partitions, topic_trouble
from pipeline.kafka.refusals import refusal
from pipeline.settings import Settings


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.TopicAuthorizationFailedError({"b", "a"}), "may not use topic a, b (the broker's ACLs)"),
        (errors.TopicAuthorizationFailedError("linewatch.masks"), "may not use topic linewatch.masks ("),
        (errors.TopicAuthorizationFailedError(), "may not use one of the topics"),
        (errors.GroupAuthorizationFailedError("g"), "may not be a member of the consumer group"),
        (errors.TransactionalIdAuthorizationFailedError(), "may not write in transactions"),
        (errors.ClusterAuthorizationFailedError(), "idempotent writes"),
        (errors.KafkaError("InitProducerIdResponse: [Error 31] ClusterAuthorizationFailedError"), "idempotent writes"),
        (errors.SaslAuthenticationFailedError(), "user or password is wrong: check LINEWATCH_KAFKA__USERNAME"),
        (errors.UnknownTopicOrPartitionError(), "a topic is gone: 'linewatch setup' makes it again"),
        (errors.MessageSizeTooLargeError(), "raise the topic's max.message.bytes"),
    ],
)
def test_a_refusal_says_what_and_what_to_do(error: Exception, told: str) -> None:
    assert told in (refusal(error) or "")
    wrapped = errors.KafkaError("transaction aborted")
    wrapped.__cause__ = error
    assert refusal(wrapped) == refusal(error)
    with pytest.raises(BrokerRefused, match=r"Kafka at 127\.0\.0\.1:9092 refuses: "), broker_answers(Settings()):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        errors.KafkaTimeoutError(),
        errors.NotEnoughReplicasError(),
        errors.KafkaError("x: [Error 15] y"),
        OSError("gone"),
    ],
)
def test_what_passes_by_itself_is_no_refusal(error: Exception) -> None:
    assert refusal(error) is None
    with pytest.raises(BrokerUnavailable, match="does not answer") as raised, broker_answers(Settings()):
        raise error
    assert not isinstance(raised.value, BrokerRefused)


def test_a_topic_is_judged_by_what_the_broker_says_of_it() -> None:
    there = {"error_code": 0, "authorized_operations": ["READ", "DESCRIBE"]}
    assert topic_trouble("t", "READ", there) is None
    assert topic_trouble("t", "READ", {"error_code": 0}) is None, "a broker that tells no rights"
    assert topic_trouble("t", "READ", {"error_code": 5}) is None, "no leader now: that passes"
    assert topic_trouble("t", "WRITE", {**there, "authorized_operations": ["ALL"]}) is None
    right = "the account may not WRITE topic t (the broker's ACLs): give it the right"
    assert topic_trouble("t", "WRITE", there) == right
    assert topic_trouble("t", "WRITE", {"error_code": 29, "authorized_operations": []}) == right
    for gone in (None, {"error_code": 3, "authorized_operations": ["WRITE"]}):
        assert topic_trouble("t", "WRITE", gone) == "topic t is gone: 'linewatch setup' makes it again, empty"


def test_partitions_that_no_member_has_are_known_of_a_settled_group_alone() -> None:
    def member(**topics: list[int]) -> dict:
        parts = [{"topic": topic, "partitions": numbers} for topic, numbers in topics.items()]
        return {"member_assignment": {"assigned_partitions": parts, "user_data": ""}}

    members = [member(images=[0, 2], other=[1]), member(), {"member_assignment": b""}]
    assert held_partitions({"group_state": "Stable", "members": members}, "images") == {0, 2}
    assert held_partitions({"group_state": "PreparingRebalance", "members": members}, "images") is None
    assert held_partitions({"group_state": "Dead", "members": []}, "images") is None
