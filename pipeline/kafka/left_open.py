"""Ending transactions that dead members left open.

A member that was killed in the middle of a transaction leaves it open until the broker's timeout, 20 s and more. Until
then readers of committed events wait for it, whoever publishes behind it. If it had sent offsets, whoever takes its
partitions over is not told the committed one either, for it may still change. Its successor would end it, but takes
longer to start than the group takes to notice the death.
"""

import logging
from contextlib import closing

from kafka.errors import KafkaError

from pipeline.kafka.clients import admin_client, make_producer
from pipeline.kafka.member_names import is_member_name
from pipeline.settings import Settings

log = logging.getLogger(__name__)


def end_left_open(settings: Settings, own: str) -> list[str]:
    """Fence this group's members whose transaction is open for longer than half a session, and thereby abort it; but
    not the caller, whose transactional id is ``own``.

    One that lives after all, but is so slow, loses that commit and goes on. Returns their transactional ids: none where
    the broker can't list them (Apache Kafka before 3.8), whose timeout ends them then.

    Raises:
        BrokerUnavailable: no broker answers.
    """
    with admin_client(settings) as admin:
        try:
            listed = admin.list_transactions(
                state_filters=["Ongoing"], duration_filter_ms=settings.kafka.session_timeout_ms // 2
            )
        except KafkaError as error:
            log.info("open transactions can't be listed (%s): waiting for their timeout", type(error).__name__)
            return []
    found = sorted({one.transactional_id for some in listed.values() for one in some})
    ended = [name for name in found if is_member_name(settings.kafka.group, name) and name != own]
    for name in ended:
        log.warning("ending the transaction that the dead member %s left open", name)
        with closing(make_producer(settings, transactional_id=name)) as producer:
            producer.init_transactions()
    return ended
