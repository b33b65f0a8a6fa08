"""One body to many events, each with its own bytes as they were sent."""

import re

import msgspec

from streamapp.gateway.problem import ProblemError

JSON = frozenset({"application/json"})
LINES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines",
    }
)
#: An array is taken apart in one go, so what bounds its elements must be known before: its commas.
ARRAY_COMMAS_MAX = 1_000_000
_ARRAY = re.compile(rb"\s*\[")
_LINE = re.compile(rb"\S[^\n]*")
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def split(body: bytes, media: str, *, events_max: int) -> list[tuple[int, bytes]]:
    """(line, bytes) of every event: elements of a JSON array, lines of NDJSON, or the one object.

    ``line`` counts from 1: the element, or the physical line (blank ones are counted and skipped).

    Raises:
        ProblemError: 415 another media type, 413 too many events, 400 no event, or no JSON array
            (in NDJSON a broken line costs only itself, and is found later).
    """
    if media in LINES:
        pieces = _split_lines(body, events_max)
    elif media not in JSON:
        known = "application/json or application/x-ndjson, CloudEvents, or an Arrow stream"
        raise unknown_media(media, known)
    elif _ARRAY.match(body):
        pieces = _split_array(body, events_max)
    else:
        pieces = [(1, body)]
    if not pieces:
        raise ProblemError(400, "request.empty", "there is no event in the body", "send one")
    return pieces


def split_batch(body: bytes, *, events_max: int) -> list[tuple[int, bytes]]:
    """(line, bytes) of every element of a JSON array, which may be empty (a CloudEvents batch).

    Raises:
        ProblemError: 413 too many, 400 no JSON array.
    """
    if not _ARRAY.match(body):
        raise ProblemError(
            400, "event.json", "the batch is not a JSON array", "send [event, event, ...]"
        )
    return _split_array(body, events_max)


def unknown_media(media: str, known: str) -> ProblemError:
    """415 that names what is taken."""
    what = f"Content-Type {media[:80]!r} is not taken here" if media else "Content-Type is missing"
    return ProblemError(415, "request.content_type", what, f"use {known}")


def _split_lines(body: bytes, events_max: int) -> list[tuple[int, bytes]]:
    pieces: list[tuple[int, bytes]] = []
    number, counted_to = 1, 0
    for match in _LINE.finditer(body):
        if len(pieces) == events_max:
            raise _too_many(events_max)
        number += body.count(b"\n", counted_to, match.start())
        counted_to = match.start()
        pieces.append((number, match[0].rstrip()))
    return pieces


def _split_array(body: bytes, events_max: int) -> list[tuple[int, bytes]]:
    if body.count(b",") > ARRAY_COMMAS_MAX:
        raise ProblemError(
            413,
            "request.commas",
            f"the JSON array has more than {ARRAY_COMMAS_MAX:,} commas",
            "send it as application/x-ndjson, which is read line by line",
        )
    try:
        elements = _elements.decode(body)
    except RecursionError:
        raise ProblemError(
            400, "event.depth", "the JSON array is nested too deeply", "send flatter JSON"
        ) from None
    except msgspec.DecodeError as error:
        raise ProblemError(
            400,
            "event.json",
            f"not a JSON array: {error}",
            "mend it, or send NDJSON, where a broken line costs only itself",
        ) from None
    if len(elements) > events_max:
        raise _too_many(events_max)
    return [(number, bytes(element)) for number, element in enumerate(elements, 1)]


def _too_many(events_max: int) -> ProblemError:
    return ProblemError(
        413,
        "request.events",
        f"the request has more than {events_max:,} events",
        "send them in several requests",
    )
