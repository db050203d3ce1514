"""Publishing what a person says of an event."""

from kafka.errors import KafkaError

from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import FEEDBACK_GIVEN, Feedback
from pipeline.kafka.clients import broker_answers, make_producer
from pipeline.settings import Settings

WITHIN_S = 15


def publish_answer(settings: Settings, feedback: Feedback) -> None:
    """It counts as soon as this returns.

    Raises:
        BrokerUnavailable: no answer; nothing may have been said. The same again, with its id, does no harm.
    """
    envelope = Envelope(
        id=feedback.feedback_id, source=feedback.camera, type=FEEDBACK_GIVEN, subject=feedback.product,
        time=feedback.given_at, content_type="application/json",
    )  # fmt: skip
    with broker_answers(settings):
        producer = make_producer(settings)
        try:
            producer.send(
                settings.topics.feedback,
                key=feedback.camera.encode(),
                value=feedback.model_dump_json().encode(),
                headers=list(envelope.headers()),
            ).get(timeout=WITHIN_S)
        finally:
            try:
                producer.close(timeout=5)
            except KafkaError:
                pass  # what counts is whether the broker has it
