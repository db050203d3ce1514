"""Every error that the stream raises on purpose, in one tree.

    LinewatchError                  what a person is told in one line
    ├── SettingsError               a setting is wrong or missing
    ├── NameRefused                 a product, camera or version that can't be a key or a path
    ├── StoreError                  the object store
    │   ├── ObjectMissing           no such object
    │   ├── ObjectTooLarge          larger than the reader takes
    │   ├── ObjectConflict          a conditional write lost its race
    │   └── StoreUnavailable        no answer, or a refusal that a person must mend; worth waiting for
    ├── BrokerError                 the message broker
    │   ├── BrokerUnavailable       no answer; worth waiting for
    │   │   └── BrokerRefused       an answer that a person must mend: no right, no topic; worth waiting for
    │   ├── TopicsUnfit             topics that can't take what settings ask of them
    │   ├── Unreadable              messages that the client can't read
    │   └── CommitLost              the transaction was not committed: rewind and go on
    │       └── CommitRefused       and will not be before a person has mended something
    ├── RegistryError               the model registry
    │   ├── UnknownProduct          no champion for this product
    │   └── UnknownVersion          no such version of this product
    ├── HistoryError                the database of what was inspected
    │   ├── HistoryUnavailable      no answer, or a refusal; nothing was written; worth trying again
    │   └── HistoryOvertaken        another follower is ahead: look again where to go on
    ├── FeedbackRefused             an answer that can't be meant, or of an event that is none
    ├── ServingError                the deployment
    └── DeadLetter                  this message can't become an event
        ├── HeadersRefused          envelope missing or malformed
        ├── ClaimRefused            a claim check that is malformed, points elsewhere, or does not match its object
        ├── ClaimMissing            a claim check to an object that isn't there
        ├── ProductUnknown          no model for the product it names
        ├── ModelBroken             the product's model can't be loaded
        ├── InspectionFailed        a readable image, and still something in its inspection broke
        ├── PoisonPill              whoever took the message up never came back
        ├── OutputTooLarge          what it became is larger than its topic takes
        ├── DeletedUnread           the broker has deleted messages that nobody had read
        └── ImageBroken             not a readable image within the limits (``error_class`` says which)

``StoreUnavailable`` and ``BrokerUnavailable`` never lose an image: the worker waits and tries again.
A ``DeadLetter`` is final for its message and goes to the dead-letter topic with its class and reason.
"""


class LinewatchError(Exception):
    """What went wrong, where, and what to do, in one line."""


class SettingsError(LinewatchError):
    pass


class NameRefused(LinewatchError):
    pass


class StoreError(LinewatchError):
    pass


class ObjectMissing(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"no object {key!r} in the store")
        self.key = key


class ObjectTooLarge(StoreError):
    pass


class ObjectConflict(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"object {key!r} was changed by someone else in the meantime")
        self.key = key


class StoreUnavailable(StoreError):
    pass


class BrokerError(LinewatchError):
    pass


class BrokerUnavailable(BrokerError):
    pass


class BrokerRefused(BrokerUnavailable):
    pass


class TopicsUnfit(BrokerError):
    pass


class Unreadable(BrokerError):
    pass


class CommitLost(BrokerError):
    pass


class CommitRefused(CommitLost):
    pass


class RegistryError(LinewatchError):
    pass


class UnknownProduct(RegistryError):
    def __init__(self, product: str) -> None:
        super().__init__(f"product {product!r} has no champion model: fit one with 'linewatch fit {product}'")
        self.product = product


class UnknownVersion(RegistryError):
    def __init__(self, product: str, version: str) -> None:
        super().__init__(f"product {product!r} has no version {version!r}: see 'linewatch models list {product}'")


class HistoryError(LinewatchError):
    pass


class HistoryUnavailable(HistoryError):
    pass


class HistoryOvertaken(HistoryError):
    pass


class FeedbackRefused(LinewatchError):
    pass


class ServingError(LinewatchError):
    pass


class DeadLetter(LinewatchError):
    """A message that can't become an event. ``error_class`` is what operators filter by."""

    @property
    def error_class(self) -> str:
        return type(self).__name__


class HeadersRefused(DeadLetter):
    pass


class ClaimRefused(DeadLetter):
    pass


class ClaimMissing(DeadLetter):
    pass


class ProductUnknown(DeadLetter):
    pass


class ModelBroken(DeadLetter):
    pass


class InspectionFailed(DeadLetter):
    pass


class PoisonPill(DeadLetter):
    pass


class OutputTooLarge(DeadLetter):
    pass


class DeletedUnread(DeadLetter):
    """Stands for several messages, of which nothing is left.

    first: the offset of the first one. topic_id: of the topic that had them, which may have been made anew since.
    """

    def __init__(self, why: str, first: int, messages: int, topic_id: str = "") -> None:
        super().__init__(why)
        self.first, self.messages, self.topic_id = first, messages, topic_id


class ImageBroken(DeadLetter):
    """Carries the decoder's own class (``EmptyImage``, ``UnreadableImage``, ``ImageTooLarge``...)."""

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self._error_class = error_class

    @property
    def error_class(self) -> str:
        return self._error_class
