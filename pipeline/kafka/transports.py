"""Connections that end: the last words of a broker that hangs up are heard, and a handshake that fails leaves nothing.

kafka-python 3.0.12 drops what it has read together with the end of a connection. A broker that refuses a password or a
token says so and hangs up at once, so the client would never know why.
"""

from typing import Any

from kafka.net import manager
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport


class _Plain(KafkaTCPTransport):
    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error  # the end is there to be read again


class _Tls(KafkaSSLTransport):
    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        data, error = super()._sock_recv()
        return data, None if data else error

    async def handshake(self) -> Any:
        try:
            return await super().handshake()
        except BaseException:
            self._sock.close()
            raise


def hear_last_words() -> None:
    """All clients of this process."""
    manager.KafkaTCPTransport, manager.KafkaSSLTransport = _Plain, _Tls
