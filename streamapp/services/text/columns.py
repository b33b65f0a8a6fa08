"""What the operations on text share: the column that is read, and those that are added."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from streamapp.plugin import Refuse, Work, column

#: A text that is longer is set aside.
CHARS_MAX = 10_000_000


def text_field(inputs: Mapping[str, pa.Schema], name: str) -> pa.Field:
    """The column of texts.

    Raises:
        Refuse: there is none, or it is of another type.
    """
    origin, schema = next(iter(inputs.items()))
    found = column(schema, name, origin, "config.column")
    kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    ):
        raise Refuse(
            "text.type",
            f"config.column: {name!r} of {origin!r} is {found.type}, not text",
            "name a column of texts",
        )
    return found


def added(schema: pa.Schema, types: Mapping[str, pa.DataType], origin: str) -> pa.Schema:
    """The schema with columns behind its own.

    Raises:
        Refuse: it has one of them already.
    """
    for name in types:
        if name in schema.names:
            raise Refuse(
                "text.twice",
                f"{origin!r} has a column {name!r} already",
                "set config.prefix, which is put before the names of all new columns",
            )
    return pa.schema([*schema, *(pa.field(name, kind) for name, kind in types.items())])


def fitting(table: pa.Table, name: str, work: Work) -> pa.Table:
    """The rows whose text is of a bearable length; others are set aside."""
    texts = table[name]
    if pa.types.is_dictionary(texts.type) or pa.types.is_string_view(texts.type):
        texts = texts.cast(pa.large_string())  # Arrow has no lengths of the others
    over = pc.fill_null(pc.greater(pc.utf8_length(texts), CHARS_MAX), fill_value=False)
    if not pc.any(over, min_count=0).as_py():
        return table
    work.quarantine(table.filter(over), f"{name} is longer than {CHARS_MAX:,} characters")
    return table.filter(pc.invert(over))
