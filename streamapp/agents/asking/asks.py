"""What is asked, and of which rows: records of ``events.ask``."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamapp.agents.making import Twin
from streamapp.core.batch import Batch
from streamapp.core.errors import Refuse
from streamapp.topics.catalogue import ASK
from streamapp.transport.clients import Outgoing
from streamapp.workflow import Workflow

Kind = Literal["intent", "type"]
UNKNOWN = "unknown"
#: The type of an event that says none.
UNTYPED = "event"
#: Of a text, so much is asked; a model would be shown no more.
TEXT_CHARS_MAX = 4000
_FIELDS_MAX, _FIELD_CHARS_MAX = 64, 200
_HEADERS = (("content-type", b"application/json"),)
_encode = msgspec.json.Encoder().encode
_decode_payload = msgspec.json.Decoder(dict[str, Any]).decode
_JSON_TYPES = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    dict: "object",
    list: "array",
    type(None): "null",
}


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row's question: its source address, and what the local models said.

    ``fields``: names and JSON types of a payload, for ``type``.
    """

    kind: Kind
    topic: str
    partition: int
    offset: int
    id: str
    text: str = ""
    local: str = UNKNOWN
    confidence: float | None = None
    fields: dict[str, str] = {}


class Asking(NamedTuple):
    """Which rows are asked about.

    Args:
        below: intents less sure than this, and unknown ones; None: no intents.
        types: events without a type that have fields.
    """

    below: float | None = None
    types: bool = False

    @classmethod
    def of(cls, workflow: Workflow) -> "Asking | None":
        """As a workflow says it; None when it asks nothing."""
        return cls(workflow.ask_below, workflow.ask_types) if workflow.asks else None


def _check(asking: Asking, columns: pa.Schema) -> None:
    if asking.below is None:
        return
    wanted = {"intent": pa.string(), "intent_confidence": pa.float32()}
    for name, kind in wanted.items():
        place = columns.get_field_index(name)
        if place < 0 or columns.field(place).type != kind:
            raise Refuse(
                "workflow.ask",
                f"ask_below asks about unsure intents, and no stage writes {name} as {kind}",
                "add the stage intent, or remove ask_below",
            )


def asks_to(asking: Asking, columns: pa.Schema, bytes_max: int) -> Twin:
    """What the enrich agent publishes beside an enriched batch: asks about some of its rows.

    Args:
        asking: which rows.
        columns: of the workflow.
        bytes_max: the topic's ``record_bytes_max``.

    Raises:
        Refuse: ``workflow.ask`` the workflow does not make what is asked about.
    """
    _check(asking, columns)

    def twin(batch: Batch) -> list[tuple[str, list[Outgoing]]]:
        found = [*_intents(batch, asking.below), *(_types(batch) if asking.types else ())]
        return [(ASK, [record for ask in found for record in _record(ask, bytes_max)])]

    return twin


def _intents(batch: Batch, below: float | None) -> Iterator[Ask]:
    if below is None or not len(batch):
        return
    confidence = batch.column("intent_confidence")
    unsure = pc.or_kleene(
        pc.equal(batch.column("intent"), UNKNOWN), pc.less(confidence, pa.scalar(below, "float"))
    )
    rows = np.flatnonzero(unsure.fill_null(False).to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    chosen = batch.rows.select(["source_offset", "id", "text", "intent", "intent_confidence"])
    for row in chosen.take(pa.array(rows)).to_pylist():
        if row["text"] and row["text"].strip():
            yield Ask(
                kind="intent",
                topic=batch.range.topic,
                partition=batch.range.partition,
                offset=row["source_offset"],
                id=row["id"],
                text=row["text"][:TEXT_CHARS_MAX],
                local=row["intent"],
                confidence=row["intent_confidence"],
            )


def _types(batch: Batch) -> Iterator[Ask]:
    untyped = pc.equal(batch.column("type"), UNTYPED)
    bare = pc.equal(batch.column("payload"), "{}")
    rows = np.flatnonzero(pc.and_not(untyped, bare).to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    chosen = batch.rows.select(["source_offset", "id", "payload"]).take(pa.array(rows))
    for row in chosen.to_pylist():
        yield Ask(
            kind="type",
            topic=batch.range.topic,
            partition=batch.range.partition,
            offset=row["source_offset"],
            id=row["id"],
            local=UNTYPED,
            fields=shape_of(row["payload"]),
        )


def shape_of(payload: str) -> dict[str, str]:
    """Names and JSON types of a payload's members; no values, so a shape is asked about once."""
    members = _decode_payload(payload)
    names = sorted(name for name in members if len(name) <= _FIELD_CHARS_MAX)[:_FIELDS_MAX]
    return {name: _JSON_TYPES[type(members[name])] for name in names}


def _record(ask: Ask, bytes_max: int) -> Iterator[Outgoing]:
    """The record; none of what does not fit, which keeps what the local models said."""
    value = _encode(ask)
    if len(value) + 1024 <= bytes_max:
        yield Outgoing(value, ask.id.encode(), _HEADERS)
