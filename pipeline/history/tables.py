"""The tables. Times are milliseconds since 1970, UTC; `at_ms` is the broker's, by which retention and windows go."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

SCHEMA = 1
"""Of the tables. A database of another one is to be thrown away and rebuilt from the topics."""

WAYS: dict[str, tuple[str, ...]] = {
    "all": (), "product": ("product",), "camera": ("camera",), "verdict": ("verdict",), "version": ("model_version",),
    "product_verdict": ("product", "verdict"), "camera_verdict": ("camera", "verdict"),
}  # fmt: skip
"""How people ask for events (`pipeline.history.queries`), an index each, in the order of a page: where any of it had to
be sorted, PostgreSQL would rather read all the newest events, whatever version or camera they are of."""

metadata = MetaData()

about = Table("about", metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False))

positions = Table(
    "positions",
    metadata,
    Column("topic", String),
    Column("partition", Integer),
    Column("next", BigInteger, nullable=False),  # the offset that is read next
    Column("topic_id", String, nullable=False),  # of the topic that it is an offset of; "" where the broker tells none
    Column("copies", BigInteger, nullable=False),  # messages that another one had said already
    PrimaryKeyConstraint("topic", "partition"),
)

events = Table(
    "events",
    metadata,
    Column("event_id", String, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("image_id", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("product", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("score", Float, nullable=False),
    Column("normalised_score", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("regions", Text, nullable=False),  # JSON, as in the event
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("mask_sha256", String, nullable=False),
    Column("review", Boolean, nullable=False),
    Column("review_rate", Float, nullable=False),
    Column("captured_ms", BigInteger, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("scored_ms", BigInteger, nullable=False),
    Column("published_ms", BigInteger, nullable=False),
    Column("source_topic", String, nullable=False),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    *(Index(f"events_{name}_at", *columns, "at_ms", "partition", "offset") for name, columns in WAYS.items()),
    Index("events_image", "image_id"),
)
Index(
    "events_review", events.c.product, events.c.event_id, sqlite_where=events.c.review, postgresql_where=events.c.review
)

hours = Table(
    "hours",
    metadata,
    Column("hour_ms", BigInteger),
    Column("product", String),
    Column("camera", String),
    Column("model_version", String),
    Column("verdict", String),
    Column("review_rate", Float),
    Column("events", BigInteger, nullable=False),
    PrimaryKeyConstraint("hour_ms", "product", "camera", "model_version", "verdict", "review_rate"),
)
"""How many events there were: of all that were ever read, those that retention took among them."""

deadletters = Table(
    "deadletters",
    metadata,
    Column("partition", Integer),
    Column("offset", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
    Column("error_class", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("camera", String, nullable=False),
    Column("product", String, nullable=False),
    Column("image_id", String, nullable=False),
    Column("source_topic", String, nullable=False),
    Column("source_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("deleted", BigInteger, nullable=False),  # messages that it stands for, of which nothing is left
    PrimaryKeyConstraint("partition", "offset"),
    Index("deadletters_at", "at_ms"),
)

replays = Table(
    "replays",
    metadata,
    Column("letter_partition", Integer),
    Column("letter_offset", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("letter_partition", "letter_offset"),
)
"""Dead letters that were sent again."""

releases = Table(
    "releases",
    metadata,
    Column("partition", Integer),
    Column("offset", BigInteger),
    Column("at_ms", BigInteger, nullable=False),
    Column("product", String, nullable=False),
    Column("version", String, nullable=False),
    Column("previous", String),
    Column("promoted_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("partition", "offset"),
    Index("releases_product_at", "product", "at_ms"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("feedback_id", String, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("event_id", String, nullable=False),
    Column("image_id", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("product", String, nullable=False),
    Column("model_version", String, nullable=False),
    Column("answer", String, nullable=False),
    Column("kind", String),
    Column("boxes", Text, nullable=False),  # JSON, as in the message
    Column("person", String, nullable=False),
    Column("comment", Text),
    Column("given_ms", BigInteger, nullable=False),
    Column("origin", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Index("feedback_event", "event_id"),
    Index("feedback_product_at", "product", "at_ms"),
)

unread = Table(
    "unread",
    metadata,
    Column("topic", String),
    Column("partition", Integer),
    Column("offset", BigInteger),
    Column("messages", BigInteger, nullable=False),
    Column("why", Text, nullable=False),
    PrimaryKeyConstraint("topic", "partition", "offset"),
)
"""What is missing here: messages that the broker deleted first, and such as nobody can read."""

CONTENTS = (events, hours, deadletters, replays, releases, feedback, unread)
"""All that follows from the topics."""
