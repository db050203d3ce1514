"""Why no connection comes about.

kafka-python 3.0.12 tries again, whatever it is told, and says in the end that it was unable to bootstrap.
"""

from typing import Any

from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

TRY_MS = 5000


def why_unreachable(connection: dict[str, Any]) -> Exception | None:
    """What one more try at each broker runs into; None where one of them takes it."""
    net = NetworkSelector()
    manager = KafkaConnectionManager(net, **connection)
    found: Exception | None = None
    try:
        for broker in manager.cluster.bootstrap_brokers():
            try:
                net.run(_connected, manager, broker.node_id)
                return None
            except Exception as error:  # whatever it is, it is what the caller asks for
                found = error
        return found
    finally:
        manager.close()
        net.close()


async def _connected(manager: KafkaConnectionManager, node_id: object) -> None:
    await manager.get_connection(node_id, timeout_ms=TRY_MS, pop_on_close=False, refresh_metadata_on_err=False)
