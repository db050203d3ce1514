"""What a broker refuses, in one line for the person who can mend it."""

from collections.abc import Iterator

from kafka import errors

NO_RIGHT = "the account may not {} (the broker's ACLs): give it the right, and the line goes on by itself"


def refusal(error: BaseException) -> str | None:
    """What is refused and what to do; None where the error is none that waiting alone can't mend."""
    for one in _chain(error):
        if told := _told(one):
            return told
    return None


def _told(error: BaseException) -> str | None:
    if isinstance(error, errors.TopicAuthorizationFailedError):
        return NO_RIGHT.format(f"use {_names(error)}")
    if isinstance(error, errors.GroupAuthorizationFailedError):
        return NO_RIGHT.format("be a member of the consumer group that kafka.group names")
    if isinstance(error, errors.TransactionalIdAuthorizationFailedError):
        return NO_RIGHT.format("write in transactions whose ids begin with kafka.group")
    if isinstance(error, errors.ClusterAuthorizationFailedError):
        return NO_RIGHT.format("do that on the cluster, such as idempotent writes")
    if isinstance(error, errors.AuthorizationError):
        return NO_RIGHT.format(f"do that: {type(error).__name__}")
    if isinstance(error, errors.SaslAuthenticationFailedError):
        return "user or password is wrong: check LINEWATCH_KAFKA__USERNAME and LINEWATCH_KAFKA__PASSWORD"
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return "a topic is gone: 'linewatch setup' makes it again"
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return "a message is larger than its topic takes: raise the topic's max.message.bytes"
    if isinstance(error, errors.InvalidTopicError | errors.PolicyViolationError | errors.UnsupportedVersionError):
        return f"{type(error).__name__}: {error}"
    return None


def _names(error: errors.TopicAuthorizationFailedError) -> str:
    """The client gives a set of topics, or one."""
    named = error.args[0] if error.args else ""
    topics = [named] if isinstance(named, str) else sorted(named)
    return f"topic {', '.join(topics)}" if any(topics) else "one of the topics"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised for: the client wraps the broker's answer now and then."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
