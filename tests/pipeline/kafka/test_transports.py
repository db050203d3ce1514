"""The last words of a broker that hangs up: kafka-python drops them, and linewatch hears them."""

import socket
from types import SimpleNamespace

import pytest
from kafka.net.transport import KafkaTCPTransport

from pipeline.kafka import transports


def said(transport: type[KafkaTCPTransport]) -> list[tuple[bytes, bool]]:
    """What two reads bring of a connection that ends right after "no": the bytes, and whether it is at its end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        theirs.sendall(b"no")
        theirs.shutdown(socket.SHUT_RDWR)
        reading = transport(SimpleNamespace(), ours)
        return [(data, error is not None) for data, error in (reading._sock_recv(), reading._sock_recv())]


def test_last_words_are_heard_before_the_end() -> None:
    assert said(transports._Plain) == [(b"no", False), (b"", True)]


def test_the_bare_client_takes_the_end_for_all() -> None:
    (data, ended), _ = said(KafkaTCPTransport)
    assert (data, ended) == (b"no", True), "and who reads it looks at the end first"


def test_every_client_of_the_process_hears_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from kafka.net import manager

    from pipeline.kafka.clients import connection
    from pipeline.settings import Kafka

    monkeypatch.setattr(manager, "KafkaTCPTransport", KafkaTCPTransport)
    connection(Kafka())
    assert manager.KafkaTCPTransport is transports._Plain
    assert manager.KafkaSSLTransport is transports._Tls
