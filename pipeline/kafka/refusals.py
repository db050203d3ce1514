"""What a broker refuses, in one line for the person who can mend it."""

import re
from collections.abc import Iterator

from kafka import errors

TLS = re.compile(r"\[SSL: (\w+)\] (.*?) \(_ssl")
"""What OpenSSL says: its reason, and in words. The client keeps the text and not the error."""
CODE = re.compile(r"\[Error (\d+)\]")
"""What the client makes of an answer that it expects no error in: its code within a text."""
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
        return _no_login(str(error))
    if isinstance(error, errors.UnsupportedSaslMechanismError):
        return "it does not know kafka.sasl_mechanism there: another mechanism, or another port"
    if type(error) is errors.KafkaError and (found := CODE.search(str(error))):
        return _told(errors.for_code(int(found[1]))())
    if found := TLS.search(str(error)):
        return _no_tls(*found.groups())
    if isinstance(error, errors.UnknownTopicOrPartitionError):
        return "a topic is gone: 'linewatch setup' makes it again"
    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return "a message is larger than its topic takes: raise the topic's max.message.bytes"
    if isinstance(error, errors.InvalidTopicError | errors.PolicyViolationError | errors.UnsupportedVersionError):
        return f"{type(error).__name__}: {error}"
    return None


def _no_login(said: str) -> str:
    if "invalid_token" in said or "OAUTHBEARER" in said:
        return (
            "it does not take the token of kafka.oauth_client_id: is kafka.oauth_token_url the server that it trusts, "
            "kafka.oauth_scope what it asks for, and are the clocks right?"
        )
    return "user or password is wrong: check LINEWATCH_KAFKA__USERNAME and LINEWATCH_KAFKA__PASSWORD"


def _no_tls(reason: str, said: str) -> str:
    """By whom the other's certificate is not taken, and where to look."""
    if reason == "CERTIFICATE_VERIFY_FAILED":
        why = said.removeprefix("certificate verify failed: ").strip(".")
        return (
            f"its certificate is not to be trusted ({why}): is kafka.ca_file the authority that signed it, and "
            "kafka.bootstrap_servers a name that it is for?"
        )
    if "ALERT" in reason and any(word in reason for word in ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE", "ACCESS")):
        return f"it does not take the certificate of kafka.cert_file, or wants one where none is set ({said})"
    return f"no TLS with it ({said}): is kafka.security_protocol that of this port?"


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
