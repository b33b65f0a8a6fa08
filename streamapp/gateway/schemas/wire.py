"""What ``/api`` takes and answers, as types: encoded, and described in OpenAPI."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamapp.core.exports import BATCH_SIZE_MAX, INTERVAL_MS_MAX

Count = Annotated[int, Meta(ge=0)]
JsonType = Literal["string", "boolean", "integer", "number", "object", "array", "null"]


class LearnedType(msgspec.Struct):
    """One type of event.

    ``examined``: events whose fields were counted; ``inferred``: events whose type was guessed;
    ``fields``: how many there are.
    """

    type: str
    count: Count
    examined: Count
    inferred: Count
    first_seen: str
    last_seen: str
    fields: Count


class LearnedTypes(msgspec.Struct):
    """All types that are known, by name.

    ``unseen``: events that came too fast to be looked at; ``unkept``: events of types for which
    there was no room.
    """

    schemas: list[LearnedType]
    unseen: Count
    unkept: Count


class LearnedField(msgspec.Struct):
    """A field: how many of the examined events had it, and the JSON types of its values."""

    count: Count
    types: list[JsonType]


class LearnedSchema(msgspec.Struct):
    """One type of event, with the union of what its events had.

    ``fields`` is by path (``order.items[].sku``); ``is_cut``: there were more than are kept.
    ``contexts`` are values of JSON-LD's ``@context``.  ``json_schema`` takes every event that was
    examined.
    """

    type: str
    count: Count
    examined: Count
    inferred: Count
    first_seen: str
    last_seen: str
    fields: dict[str, LearnedField]
    is_cut: bool
    contexts: list[Any]
    sample: Any
    json_schema: dict[str, Any]


class RecentEvent(msgspec.Struct):
    """One event that came through this gateway.

    ``note`` says why it was rejected or dead-lettered, or which rule it breaks.
    """

    id: str
    type: str
    source: str
    status: Literal["received", "dead-lettered", "rejected"]
    received: str
    topic: str
    partition: Count | None
    offset: Count | None
    note: str | UnsetType = UNSET


class RecentEvents(msgspec.Struct):
    """The newest events of this gateway, newest first."""

    events: list[RecentEvent]


class ExportValues(msgspec.Struct):
    """What an export goes by, as far as clients may change it."""

    webhook_url: str
    ontology_iri: str
    batch_size: Count
    interval_ms: Count


class ExportChange(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What clients change; null is as declared, and what is not there stays as it is."""

    webhook_url: str | UnsetType | None = UNSET
    ontology_iri: str | UnsetType | None = UNSET
    batch_size: Annotated[int, Meta(ge=1, le=BATCH_SIZE_MAX)] | UnsetType | None = UNSET
    interval_ms: Annotated[int, Meta(ge=0, le=INTERVAL_MS_MAX)] | UnsetType | None = UNSET


class ExportConfig(msgspec.Struct):
    """The export ``default``: as the project file declares it, what clients changed, the sum."""

    declared: ExportValues
    changed: ExportChange
    effective: ExportValues


class ExportChanged(msgspec.Struct):
    """The change is on the log; ``changed`` is all that clients have changed."""

    status: Literal["published"]
    changed: ExportChange
    partition: Count
    offset: Count
