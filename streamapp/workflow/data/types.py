"""Types of columns by the names that a declaration gives them."""

from collections.abc import Mapping

import pyarrow as pa

from streamapp.core.errors import Refuse

TYPES = {
    "string": pa.string(),
    "text": pa.string(),
    "int": pa.int64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float": pa.float64(),
    "double": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def declared_type(name: str, origin: str) -> pa.DataType:
    """The Arrow type of ``string``, ``int64``, ``list<string>`` and so on.

    Raises:
        Refuse: there is no such type.
    """
    if name.startswith("list<") and name.endswith(">"):
        return pa.list_(declared_type(name[5:-1], origin))
    if name not in TYPES:
        raise Refuse(
            "data.type",
            f"{origin}: there is no type {name!r}",
            f"types are {', '.join(TYPES)} and list<TYPE>",
        )
    return TYPES[name]


def with_declared(learned: pa.Schema, declared: Mapping[str, str], origin: str) -> pa.Schema:
    """The schema with the declared types; a column that only the declaration has comes last."""
    for name, kind in declared.items():
        field = pa.field(name, declared_type(kind, origin))
        index = learned.get_field_index(name)
        learned = learned.set(index, field) if index >= 0 else learned.append(field)
    return learned
