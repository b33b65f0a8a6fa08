"""The records that every contender reads: JSON events of 1 KB with ids of their own."""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

BYTES = 1000
#: Texts made ahead; every event has an id of its own, or the worker would drop it as a repeat.
TEXTS = 10_000
TEXT = (
    "invoice account please cancel the plan of last month because my phone does not answer and "
    "nobody told me why it was charged twice thank you for looking into this again tomorrow"
)


def event(number: int, dice: random.Random) -> bytes:
    """One event: eight known keys, two of its producer's own, filled up with words to ``BYTES``."""
    body = {
        "id": f"evt-{number:012d}",
        "type": "UserMessage",
        "source": "https://shop.example/chat",
        "conversation_id": f"c{number % 997}",
        "actor": "customer" if number % 2 else "agent",
        "time": f"2026-11-22T09:{number // 60 % 60:02d}:{number % 60:02d}.125Z",
        "duration_ms": number % 9000 / 2,
        "message": "",
        "plan": "gold",
        "cart": {"items": [number % 7, 12, 90], "total": number % 100_000 / 100},
    }
    length = len(json.dumps(body, separators=(",", ":")))
    text = " ".join(dice.choices(TEXT.split(), k=BYTES // 3))
    body["message"] = text[: BYTES - length]
    return json.dumps(body, separators=(",", ":")).encode()


def events(count: int, first: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of ``count`` events with ids of their own, numbered from ``first``."""
    dice = random.Random(7)
    made = [event(number, dice) for number in range(min(count, TEXTS))]
    id_at, id_end = len(b'{"id":"evt-'), len(b'{"id":"evt-') + 12
    for number in range(count):
        value, id_ = made[number % TEXTS], b"%012d" % (first + number)
        yield b"c%d" % (number % TEXTS % 997), value[:id_at] + id_ + value[id_end:]


async def make_topics(bootstrap: str, topics: Sequence[tuple[str, int]], **config: str) -> None:
    """Create (name, partitions) on the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, n, 1, topic_configs=config) for name, n in topics]
        )
    finally:
        await admin.close()


async def fill(bootstrap: str, topic: str, partitions: int, count: int) -> None:
    """Append ``count`` events, the same number to every partition, uncompressed."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks=1, linger_ms=20, max_batch_size=1 << 20
    )
    await producer.start()
    try:
        for number, (key, value) in enumerate(events(count)):
            await producer.send(topic, value, key, partition=number % partitions)
        await producer.flush()
    finally:
        await producer.stop()


def run_fill(bootstrap: str, topic: str, partitions: int, count: int) -> None:
    """Make the topic and fill it."""
    asyncio.run(make_topics(bootstrap, [(topic, partitions)]))
    asyncio.run(fill(bootstrap, topic, partitions, count))
