"""What a cluster refuses a consumer for good: aiokafka logs it, or keeps it until it is asked."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from streamapp.transport.kafka.credentials import FaustSecurity, joined
from streamapp.transport.kafka.errors import is_final, translated


@contextmanager
def refusals(app: Any) -> Iterator[None]:
    """What the consumer of a Faust app is refused for good, as our own error.

    Raises:
        Refuse: it may not read, or not as this group.
    """
    try:
        yield
    except KafkaError as error:
        if not is_final(error):
            raise
        what = f"reading as group {app.conf.id!r}"
        url = joined(app.conf.broker_consumer)
        raise translated(error, what, url, FaustSecurity.ways) from error


async def check_topics(consumer: Any, log: Any, answer_s_max: float) -> None:
    """Look whether the topics that an aiokafka consumer has just subscribed to may be seen.

    Raises:
        TopicAuthorizationFailedError: some are hidden from us; aiokafka would read the others.
    """
    client = consumer._client  # noqa: SLF001
    try:
        async with asyncio.timeout(answer_s_max):
            await client._maybe_wait_metadata()  # noqa: SLF001
    except (TimeoutError, KafkaError) as error:
        log.warning("may we read our topics? No answer yet (%s)", type(error).__name__)
    if hidden := sorted(client.cluster.unauthorized_topics):
        raise TopicAuthorizationFailedError(", ".join(hidden))


def check_group(consumer: Any, log: Any) -> None:
    """Ask how the membership goes: it stands still until somebody has asked for its error.

    Raises:
        KafkaError: one that stays.
    """
    if consumer._closed:  # noqa: SLF001
        return
    try:
        consumer._coordinator.check_errors()  # noqa: SLF001
    except KafkaError as error:
        if not error.retriable:
            raise
        log.warning("the group: %r", error)
