"""Flight SQL's answers that do not depend on the store: keys, of which it has none, and types.

The schemas are those of FlightSql.proto (Apache Arrow), which drivers check.
"""

from typing import Any

import pyarrow as pa

from streamapp.flight import wire


def _field(name: str, kind: pa.DataType, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


PRIMARY_KEYS = pa.schema(
    [
        _field("catalog_name", pa.string(), nullable=True),
        _field("db_schema_name", pa.string(), nullable=True),
        _field("table_name", pa.string()),
        _field("column_name", pa.string()),
        _field("key_sequence", pa.int32()),
        _field("key_name", pa.string(), nullable=True),
    ]
)
FOREIGN_KEYS = pa.schema(
    [
        *(
            _field(
                f"{side}_{name}", pa.string(), nullable=name in {"catalog_name", "db_schema_name"}
            )
            for side in ("pk", "fk")
            for name in ("catalog_name", "db_schema_name", "table_name", "column_name")
        ),
        _field("key_sequence", pa.int32()),
        _field("fk_key_name", pa.string(), nullable=True),
        _field("pk_key_name", pa.string(), nullable=True),
        _field("update_rule", pa.uint8()),
        _field("delete_rule", pa.uint8()),
    ]
)
TYPES = pa.schema(
    [
        _field("type_name", pa.string()),
        _field("data_type", pa.int32()),
        _field("column_size", pa.int32(), nullable=True),
        _field("literal_prefix", pa.string(), nullable=True),
        _field("literal_suffix", pa.string(), nullable=True),
        _field("create_params", pa.list_(_field("item", pa.string())), nullable=True),
        _field("nullable", pa.int32()),
        _field("case_sensitive", pa.bool_()),
        _field("searchable", pa.int32()),
        _field("unsigned_attribute", pa.bool_(), nullable=True),
        _field("fixed_prec_scale", pa.bool_()),
        _field("auto_increment", pa.bool_(), nullable=True),
        _field("local_type_name", pa.string(), nullable=True),
        _field("minimum_scale", pa.int32(), nullable=True),
        _field("maximum_scale", pa.int32(), nullable=True),
        _field("sql_data_type", pa.int32()),
        _field("datetime_subcode", pa.int32(), nullable=True),
        _field("num_prec_radix", pa.int32(), nullable=True),
        _field("interval_precision", pa.int32(), nullable=True),
    ]
)
#: Name, XdbcDataType, size, quotes, unsigned (None: no number), radix, XdbcDatetimeSubcode.
_TYPES: tuple[tuple[str, int, int | None, str | None, bool | None, int | None, int | None], ...] = (
    ("BOOLEAN", -7, 1, None, None, None, None),
    ("TINYINT", -6, 3, None, False, 10, None),
    ("SMALLINT", 5, 5, None, False, 10, None),
    ("INTEGER", 4, 10, None, False, 10, None),
    ("BIGINT", -5, 19, None, False, 10, None),
    ("UBIGINT", -5, 20, None, True, 10, None),
    ("FLOAT", 7, 7, None, False, 2, None),
    ("DOUBLE", 8, 15, None, False, 2, None),
    ("DECIMAL", 3, 38, None, False, 10, None),
    ("VARCHAR", 12, None, "'", None, None, None),
    ("BLOB", -3, None, "'", None, None, None),
    ("DATE", 91, 10, "'", None, None, 1),
    ("TIME", 92, 15, "'", None, None, 2),
    ("TIMESTAMP", 93, 26, "'", None, None, 3),
)
_NULLABLE, _SEARCHABLE_FULL = 1, 3

SCHEMAS = {
    "CommandGetPrimaryKeys": PRIMARY_KEYS,
    "CommandGetExportedKeys": FOREIGN_KEYS,
    "CommandGetImportedKeys": FOREIGN_KEYS,
    "CommandGetCrossReference": FOREIGN_KEYS,
    "CommandGetXdbcTypeInfo": TYPES,
}


def answer(name: str, message: wire.Message) -> pa.Table:
    """The answer to a command of ``SCHEMAS``."""
    if name != "CommandGetXdbcTypeInfo":
        return SCHEMAS[name].empty_table()
    wanted = [wire.signed32(value) for value in message.get(1, []) if isinstance(value, int)]
    rows = [_type(*row) for row in _TYPES if not wanted or row[1] == wanted[0]]
    return pa.Table.from_pylist(rows, TYPES)


def _type(
    name: str,
    number: int,
    size: int | None,
    quote: str | None,
    unsigned: bool | None,
    radix: int | None,
    subcode: int | None,
) -> dict[str, Any]:
    return {
        "type_name": name,
        "data_type": number,
        "column_size": size,
        "literal_prefix": quote,
        "literal_suffix": quote,
        "nullable": _NULLABLE,
        "case_sensitive": name == "VARCHAR",
        "searchable": _SEARCHABLE_FULL,
        "unsigned_attribute": unsigned,
        "fixed_prec_scale": False,
        "auto_increment": False,
        "local_type_name": name,
        "sql_data_type": number if subcode is None else 9,  # 9: a date or time, see its subcode
        "datetime_subcode": subcode,
        "num_prec_radix": radix,
    }
