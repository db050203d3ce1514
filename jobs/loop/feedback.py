"""What people say of events: given, withdrawn, read back. It goes to a topic, and is read from the history."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from jobs.line.follow import event_of
from jobs.past.reproduce import checked_id, find_event
from pipeline.contracts.events import Answer, Box, Feedback, Origin, in_words
from pipeline.errors import FeedbackRefused
from pipeline.history import History, event
from pipeline.kafka.answers import publish_answer
from pipeline.kafka.topics import ensure_topics
from pipeline.settings import Settings


@dataclass(frozen=True)
class About:
    """The event that is spoken of."""

    event_id: str
    image_id: str
    camera: str
    product: str
    model_version: str
    width: int
    height: int


def find(settings: Settings, identifier: str, *, exact: bool) -> About:
    """The event, from the history where it has it, else from its topic.

    exact: whether the broker tells its offsets right.

    Raises:
        Gone: neither has it. NameRefused: that is no event id.
    """
    checked_id(identifier)
    with History(settings) as history:
        row = event(history, identifier)
    if row is None:
        row = event_of(find_event(settings, identifier, exact=exact)).model_dump()
    return About(**{name: row[name] for name in About.__dataclass_fields__})


def give(
    settings: Settings,
    about: About,
    answer: Answer,
    person: str,
    *,
    kind: str | None = None,
    boxes: Sequence[Box] = (),
    comment: str | None = None,
    origin: Origin = "review",
) -> Feedback:
    """Publish an answer; it counts as soon as this returns.

    Raises:
        FeedbackRefused: it says two things at once, or speaks of a place that the image has not.
        BrokerUnavailable: no answer; nothing may have been said.
    """
    for box in boxes:
        if box.x + box.width > about.width or box.y + box.height > about.height:
            raise FeedbackRefused(
                f"the box {box.x},{box.y},{box.width},{box.height} reaches out of the image, which has "
                f"{about.width} x {about.height} px"
            )
    try:
        feedback = Feedback(
            feedback_id=uuid.uuid4().hex, event_id=about.event_id, image_id=about.image_id, camera=about.camera,
            product=about.product, model_version=about.model_version, answer=answer, kind=kind, boxes=list(boxes),
            person=person, comment=comment, given_at=datetime.now(UTC), origin=origin,
        )  # fmt: skip
    except ValidationError as error:
        raise FeedbackRefused(in_words(error)) from None
    ensure_topics(settings, only=[settings.topics.feedback])
    publish_answer(settings, feedback)
    return feedback
