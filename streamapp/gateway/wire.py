"""What the gateway's own routes answer, as types: encoded, and described in OpenAPI."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamapp.gateway.stamp import Violation

Offset = Annotated[int, Meta(ge=0)]


class Received(msgspec.Struct):
    """One event that the log has.

    ``violation``: it is not as its topic's schema wants it, which only observes.
    """

    status: Literal["received"]
    event_type: str
    id: str
    partition: Offset
    offset: Offset
    violation: Violation | UnsetType = UNSET


class DeadLetter(msgspec.Struct):
    """One event that its topic does not take, and ``topic`` keeps: it need not be sent again."""

    status: Literal["dead-lettered"]
    event_type: str
    id: str
    topic: str
    partition: Offset
    offset: Offset
    code: str
    error: str
    fix: str


class Pong(msgspec.Struct):
    """GitHub's ping: answered and not kept."""

    status: Literal["pong"]
    id: str


class Line(msgspec.Struct):
    """What became of one event of many.

    ``line`` counts from 1: the line of the file, the element of the array, the row of the batch.
    Where it is stands there when ``status`` is ``received``; ``code``, ``error`` and ``fix`` when
    it is ``rejected``; all of these, and the ``topic`` that has it, when it is ``dead-lettered``.
    """

    line: Annotated[int, Meta(ge=1)]
    status: Literal["received", "accepted", "dead-lettered", "rejected"]
    id: str | UnsetType = UNSET
    partition: Offset | UnsetType = UNSET
    offset: Offset | UnsetType = UNSET
    code: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    fix: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    violation: Violation | UnsetType = UNSET


class Lines(msgspec.Struct):
    """What became of many events, one entry for each; ``dead_lettered`` is there when any was."""

    accepted: Offset
    rejected: Offset
    events: list[Line]
    dead_lettered: Offset | UnsetType = UNSET


class Problem(msgspec.Struct):
    """An error (RFC 9457), with what to do about it.

    ``code`` is dotted and stable; ``error`` repeats ``detail`` for clients that know no RFC 9457.
    """

    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    code: str
    fix: str
    error: str
    type: str = "about:blank"


class Health(msgspec.Struct):
    """That the process turns."""

    status: Literal["ok"]


class Readiness(msgspec.Struct):
    """Whether events would be taken now; a check says ``ok`` or what is wrong."""

    ready: bool
    checks: dict[str, str]
