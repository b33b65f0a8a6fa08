"""The contender Quix Streams; runs in an environment of its own that has quixstreams and our decoder."""

import os
from typing import Any

from quixstreams import Application
from transport.meter import Meter, Task, decode, run

from streamapp.core.slice import Record

FETCH_BYTES = 8 << 20
#: Quix knows single events only; its user gathers as many as Faust's take and decodes them at once.
GATHERED = 256


def quix(task: Task) -> None:
    """A streaming dataframe over raw bytes; commits every 5 s as it does by default."""
    meter = Meter(task.events)
    gathered: list[Record] = []
    app = Application(
        broker_address=task.bootstrap,
        consumer_group=f"bench-{os.getpid()}",
        auto_offset_reset="earliest",
        auto_create_topics=False,
        use_changelog_topics=False,
        loglevel="ERROR",
        consumer_extra_config={
            "fetch.message.max.bytes": FETCH_BYTES,
            "fetch.max.bytes": 4 * FETCH_BYTES,
            "queued.min.messages": 200_000,
            "queued.max.messages.kbytes": 1 << 18,
            "fetch.wait.max.ms": 10,
        },
    )

    def take(value: bytes, key: Any, timestamp: int, _headers: Any) -> None:
        gathered.append(Record(len(gathered), timestamp, key, value))
        if len(gathered) == GATHERED:
            if task.decode:
                decode(task.topic, 0, list(gathered))
            gathered.clear()
            meter.add(GATHERED)

    topic = app.topic(task.topic, value_deserializer="bytes", key_deserializer="bytes")
    app.dataframe(topic).update(take, metadata=True)
    app.run()


if __name__ == "__main__":
    run({"quix": quix})
