"""The columns of ``events``: checked against what is stored, and widened when a store opens."""

from collections.abc import Mapping

import pyarrow as pa

from streamapp.core.errors import Refuse
from streamapp.sink import schema
from streamapp.sink.answers import ANSWERS
from streamapp.sink.parquet.manifest import FOLDER
from streamapp.sink.parquet.parts import ORDER_FIELD
from streamapp.sink.parquet.place import Place

#: What a root of ours may have beside its manifest.
_OURS = frozenset({"_drafts", "_lock", "answers", "dead", "events", "provenance"})


def of_tables(events: pa.Schema) -> dict[str, pa.Schema]:
    """The schema of every table that is kept in files, given that of ``events``."""
    return {
        "events": events,
        "dead": schema.DEAD,
        "provenance": schema.PROVENANCE,
        "answers": ANSWERS,
    }


def check_owner(place: Place) -> None:
    """Refuse a root that has files of someone else, and is not a store."""
    there = set(place.names(""))
    strange = sorted(there - _OURS - {FOLDER, ""})
    if FOLDER not in there and strange:
        raise Refuse(
            "store.foreign",
            f"{place.url} has files of someone else ({', '.join(strange[:3])})",
            "give the store a folder of its own (STREAMAPP_PARQUET_URL)",
        )


def widened(url: str, stored: pa.Schema | None, columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """The stored columns and, after them, new ones; columns of stages that are gone stay.

    Raises:
        Refuse: a name is taken, or a column changed its type.
    """
    schema.check_names(columns, (*schema.CORE_FIELDS, ORDER_FIELD))
    fields = list(stored or pa.schema([*schema.CORE_FIELDS, ORDER_FIELD]))
    known = {field.name.lower(): field for field in fields}
    for name, kind in columns.items():
        before = known.get(name.lower())
        if before is None:
            fields.append(pa.field(name, kind))
        elif before.type != kind:
            raise Refuse(
                "store.column_type",
                f"column {name!r} of {url} is {before.type}, the workflow now writes {kind}",
                "give the stage's column another name, or use another root: "
                "events.enriched fills a new one",
            )
    return pa.schema(fields)


def damaged(url: str, error: pa.ArrowException) -> Refuse:
    """What Arrow could not read when the store opened."""
    return Refuse(
        "store.corrupt",
        f"{url} has a damaged file: {str(error).partition(chr(10))[0]}",
        "restore it, or use another root: events.enriched fills a new one",
    )
