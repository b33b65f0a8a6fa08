"""Events as lines of NDJSON, and how many go into one request."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from streamapp.client.outcomes import Rejected

#: What a client sends: a text, a JSON object's bytes, or anything that msgspec writes as an object
#: (a mapping, a dataclass, a Struct).
Event = str | bytes | Mapping[str, Any] | Any

_encode = msgspec.json.Encoder().encode


def line_of(event: Event, number: int) -> bytes | Rejected:
    """One event's line; ``number`` is its place, for who is told why there is none.

    A str is an event of that text; bytes are sent as they are, on one line.
    """
    try:
        if isinstance(event, bytes):
            if not event.strip():  # the gateway skips blank lines
                return Rejected(number, "event.empty", "it is empty", "send a JSON object")
            return msgspec.json.format(event, indent=-1) if b"\n" in event else event
        if isinstance(event, str):
            return _encode({"message": event})
        if isinstance(event, Mapping) and not isinstance(event, dict):
            event = dict(event)
        return _encode(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Rejected(number, "event.json", f"no JSON: {error}", "send what JSON can say")


def batches(
    events: Iterable[Event], events_max: int, bytes_max: int
) -> Iterator[list[bytes | Rejected]]:
    """Lines of one request each: full by number or by bytes, an event above these alone."""
    batch: list[bytes | Rejected] = []
    nbytes = 0
    for number, event in enumerate(events, 1):
        line = line_of(event, number)
        size = len(line) if isinstance(line, bytes) else 0
        if batch and (len(batch) >= events_max or nbytes + size > bytes_max):
            yield batch
            batch, nbytes = [], 0
        batch.append(line)
        nbytes += size
    if batch:
        yield batch
