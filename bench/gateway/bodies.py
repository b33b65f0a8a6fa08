"""What is posted: chat messages of some 300 bytes, alone and many at once."""

import io
import random
from collections.abc import Sequence

import msgspec
import pyarrow as pa
from transport.records import TEXT

#: Different bodies of one event, and events of a large body.
SINGLES, MANY = 64, 1_000
CONVERSATIONS = 997
ARROW = "application/vnd.apache.arrow.stream"
JSON_V2 = "application/vnd.kafka.json.v2+json"
CLOUDEVENTS = "application/cloudevents-batch+json"


def events(count: int) -> list[dict[str, object]]:
    """Events without ids of their own: the gateway gives each one."""
    dice = random.Random(7)
    words = TEXT.split()
    return [
        {
            "type": "UserMessage",
            "source": "https://shop.example/chat",
            "conversation_id": f"c{number % CONVERSATIONS}",
            "actor": "customer" if number % 2 else "agent",
            "time": f"2026-11-22T09:{number // 60 % 60:02d}:{number % 60:02d}.125Z",
            "message": " ".join(dice.choices(words, k=20)),
            "plan": "gold",
        }
        for number in range(count)
    ]


def singles() -> list[bytes]:
    """Bodies for ``/ingest``."""
    return [msgspec.json.encode(event) for event in events(SINGLES)]


def records() -> list[bytes]:
    """Bodies for Confluent's v2 produce, with the same values."""
    return [
        msgspec.json.encode({"records": [{"key": event["conversation_id"], "value": event}]})
        for event in events(SINGLES)
    ]


def lines() -> bytes:
    """A body of NDJSON."""
    return b"\n".join(msgspec.json.encode(event) for event in events(MANY))


def cloudevents() -> bytes:
    """The same as a batch of CloudEvents."""
    batch = []
    for number, event in enumerate(events(MANY)):
        said = {name: event.pop(name) for name in ("type", "source", "time")}
        batch.append({"specversion": "1.0", "id": f"e{number}", **said, "data": event})
    return msgspec.json.encode(batch)


def arrow() -> bytes:
    """The same as an Arrow IPC stream, one batch."""
    table = pa.Table.from_pylist(events(MANY))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def mean_bytes(bodies: Sequence[bytes]) -> float:
    return sum(map(len, bodies)) / len(bodies)
