"""Publishing what a person says of an event."""

from pipeline.contracts.broker import Outgoing
from pipeline.contracts.cloudevents import Envelope
from pipeline.contracts.events import FEEDBACK_GIVEN, Feedback
from pipeline.kafka.clients import publish_one
from pipeline.settings import Settings


def publish_answer(settings: Settings, feedback: Feedback) -> None:
    """It counts as soon as this returns.

    Raises:
        BrokerUnavailable: no answer; nothing may have been said. The same again, with its id, does no harm.
    """
    envelope = Envelope(
        id=feedback.feedback_id, source=feedback.camera, type=FEEDBACK_GIVEN, subject=feedback.product,
        time=feedback.given_at, content_type="application/json",
    )  # fmt: skip
    value = feedback.model_dump_json().encode()
    publish_one(settings, Outgoing(settings.topics.feedback, feedback.camera.encode(), value, envelope.headers()))
