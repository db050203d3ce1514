"""What travels between rooms and to the outside: events, claim checks, releases, dead letters.

The JSON Schemas of these models are exported to docs/schemas; additions keep old readers working.
"""

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from model import Region
from pipeline.contracts.names import ProductName, VersionName

Verdict = Literal["OK", "NotOK", "NotDecidable"]
Answer = Literal["good", "defect", "unsure", "withdrawn"]
Origin = Literal["review", "blind", "golden", "report"]

IMAGE_CAPTURED = "linewatch.image.captured.v1"
IMAGE_INSPECTED = "linewatch.image.inspected.v1"
MASK_CUT = "linewatch.mask.cut.v1"
HEAT_MAPPED = "linewatch.heatmap.mapped.v1"
MODEL_RELEASED = "linewatch.model.released.v1"
FEEDBACK_GIVEN = "linewatch.feedback.given.v1"

CLAIM_CONTENT_TYPE = "application/vnd.linewatch.claim+json"
IMAGE_CONTENT_TYPES = ("image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp")


class Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ClaimCheck(Contract):
    """Stands in for an image too large for the broker: where it lies in S3, and what it must be."""

    uri: str = Field(pattern=r"^s3://", max_length=1200, description="s3://bucket/key")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the encoded image")
    size: int = Field(ge=1, description="Bytes of the encoded image")
    content_type: Literal["image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp"]


class MaskReference(Contract):
    """Where the mask of an event travels."""

    topic: str
    key: str = Field(description="Message key: the camera, as for the event")
    event_id: str = Field(description="ce_id of the mask message begins with it")
    sha256: str = Field(description="Of the PNG")


class Times(Contract):
    captured: AwareDatetime
    received: AwareDatetime = Field(description="Fetched from the broker by the replica")
    scored: AwareDatetime
    published: AwareDatetime


class SourceOffset(Contract):
    topic: str
    partition: int
    offset: int


class InspectionEvent(Contract):
    """One per image. Verdicts are OPC 40001 words; NotDecidable is the review band around the threshold."""

    event_id: str = Field(description="Deterministic: of the image id and the model version")
    image_id: str
    camera: str = Field(description="ISA-95 path: /site/area/line/camera")
    product: ProductName
    model_version: VersionName
    score: float = Field(description="Raw image score")
    normalised_score: float = Field(description="score / threshold: 1.0 is the threshold")
    threshold: float
    verdict: Verdict
    regions: list[Region] = Field(description="In pixels of the original image, highest peak first")
    width: int = Field(description="Of the original image, px")
    height: int = Field(description="Of the original image, px")
    mask: MaskReference
    times: Times
    source: SourceOffset
    review: bool = Field(False, description="Whether a person is asked: it is doubtful, or was drawn at random")
    review_rate: float = Field(0.0, ge=0, le=1, description="With which probability parts of this verdict are drawn")


class Release(Contract):
    """A champion changed, for whoever wants to know. Replicas poll the alias itself, which can't be missed."""

    product: ProductName
    version: VersionName
    previous: VersionName | None = Field(None, description="The version that served until now")
    promoted_at: datetime


class Box(Contract):
    """In pixels of the original image."""

    x: int = Field(ge=0, lt=1 << 31)
    y: int = Field(ge=0, lt=1 << 31)
    width: int = Field(ge=1, lt=1 << 31)
    height: int = Field(ge=1, lt=1 << 31)


class Feedback(Contract):
    """What a person says of an event. The last answer of a person counts; a withdrawn one does not count any more."""

    feedback_id: str = Field(min_length=1, max_length=64, description="Unique; the same again is the same answer")
    event_id: str = Field(min_length=1, max_length=64)
    image_id: str
    camera: str = Field(description="ISA-95 path, as in the event")
    product: ProductName
    model_version: VersionName = Field(description="The version that scored the event")
    answer: Answer
    kind: str | None = Field(None, min_length=1, max_length=64, description="Of the defect, in the plant's own words")
    boxes: list[Box] = Field(default_factory=list, max_length=100, description="Where the defect is")
    person: str = Field(min_length=1, max_length=64)
    comment: str | None = Field(None, max_length=500)
    given_at: AwareDatetime
    origin: Origin = Field("review", description="review: it was doubtful; blind: a random sample of parts taken as OK")

    @model_validator(mode="after")
    def _says_one_thing(self) -> "Feedback":
        if self.answer != "defect" and (self.kind or self.boxes):
            raise ValueError(f"a kind and boxes are of a defect, and the answer is {self.answer!r}")
        return self


def in_words(error: ValidationError) -> str:
    """What is wrong with a message, in a line: the first of it."""
    first = error.errors()[0]
    where, told = ".".join(map(str, first["loc"])), str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {told}" if where else told


def event_id(image_id: str, model_version: str) -> str:
    """The same image scored by the same version has the same event id, however often it is delivered."""
    return hashlib.sha256(f"{image_id}\n{model_version}".encode()).hexdigest()[:32]


CONTRACTS: dict[str, type[Contract]] = {
    "inspection-event": InspectionEvent,
    "claim-check": ClaimCheck,
    "release": Release,
    "feedback": Feedback,
}
