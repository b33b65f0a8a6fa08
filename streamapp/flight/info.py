"""Flight SQL's SqlInfo: what the server says it can do.

Numbers, meanings and types are those of FlightSql.proto (Apache Arrow).  JDBC tools ask for most of
them, and their driver fails on one that is missing.
"""

from typing import Any

import duckdb
import pyarrow as pa

from streamapp.flight import guard, wire

_FIELDS = (
    pa.field("string_value", pa.string()),
    pa.field("bool_value", pa.bool_()),
    pa.field("bigint_value", pa.int64()),
    pa.field("int32_bitmask", pa.int32()),
    pa.field("string_list", pa.list_(pa.string())),
    pa.field("int32_to_int32_list_map", pa.map_(pa.int32(), pa.list_(pa.int32()))),
)
_STRING, _BOOL, _BIGINT, _BITMASK, _LIST, _MAP = range(len(_FIELDS))
SCHEMA = pa.schema(
    [
        pa.field("info_name", pa.uint32(), nullable=False),
        pa.field("value", pa.dense_union(_FIELDS), nullable=False),
    ]
)
#: Names, quotes and words: the server's name, its version, Arrow's; the identifier quote, the
#: escape in patterns, extra characters in names; what schemas, procedures and catalogs are called.
_STRINGS = {
    0: "streamapp",
    1: f"DuckDB {duckdb.__version__}",
    2: pa.__version__,
    504: '"',
    513: "\\",
    514: "",
    529: "schema",
    530: "macro",
    531: "database",
}
#: Read only, SQL, ingests by Flight; tables, aliases, expressions, LIKE, names for parameters.
_TRUE = frozenset({3, 4, 10, 506, 515, 516, 518, 520, 521, 523, 524, 532, 539, 573})
#: Substrait, cancelling, transactions, DDL, locks, procedures, updates by cursor.
_FALSE = frozenset(
    {5, 9, 11, 500, 501, 502, 519, 527, 536, 537, 556, 563, 565, 566, 571, 572, 574, 575}
)
#: No transactions (0); names keep their case and are compared without it (3); NULLs sort last (1);
#: no isolation level.  Everything from 541 on is a maximum, where 0 says none is known.
_NUMBERS = {8: 0, 503: 3, 505: 3, 507: 1, 562: 0}
_NUMBERS |= {number: 0 for number in range(541, 562) if number not in _FALSE}
_NUMBERS[557] = guard.SQL_BYTES_MAX
#: GROUP BY of anything, SQL grammar to the core, ANSI 92 entry level, all outer joins, schemas and
#: catalogs in queries, all kinds of subquery and of UNION; one forward, read-only cursor.
_BITMASKS = {
    522: 3, 525: 7, 526: 1, 528: 7, 533: 0, 534: 0, 535: 0, 538: 15, 540: 3, 564: 1, 567: 2,
    568: 0, 569: 2, 570: 0,
}  # fmt: skip
#: Queries of a string list: keywords, functions on numbers, on text, of the system, on times.
_LISTS = {
    508: "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'",
    509: "SELECT unnest(['abs', 'ceil', 'exp', 'floor', 'ln', 'log10', 'pow', 'round'])",
    510: "SELECT unnest(['concat', 'length', 'lower', 'replace', 'substr', 'upper'])",
    511: "SELECT unnest(['coalesce', 'version'])",
    512: "SELECT unnest(['date_diff', 'date_part', 'date_trunc', 'now', 'strftime'])",
}
_CONVERSIONS = 517

_KINDS = {
    **dict.fromkeys(_STRINGS, _STRING),
    **dict.fromkeys(_TRUE | _FALSE, _BOOL),
    **dict.fromkeys(_NUMBERS, _BIGINT),
    **dict.fromkeys(_BITMASKS, _BITMASK),
    **dict.fromkeys(_LISTS, _LIST),
    _CONVERSIONS: _MAP,
}


def answer(message: wire.Message, cursor: duckdb.DuckDBPyConnection) -> pa.Table:
    """The values of the numbers that are asked for, all when none are; unknown ones are left out.

    Raises:
        Refuse: the message is malformed.
    """
    asked = wire.numbers(message, 1) or sorted(_KINDS)
    known = [number for number in asked if number in _KINDS]
    children: list[list[Any]] = [[] for _ in _FIELDS]
    kinds, offsets = [], []
    for number in known:
        kind = _KINDS[number]
        kinds.append(kind)
        offsets.append(len(children[kind]))
        children[kind].append(_value(number, cursor))
    values = pa.UnionArray.from_dense(
        pa.array(kinds, pa.int8()),
        pa.array(offsets, pa.int32()),
        [pa.array(child, f.type) for child, f in zip(children, _FIELDS, strict=True)],
        [field.name for field in _FIELDS],
    )
    return pa.table([pa.array(known, pa.uint32()), values], schema=SCHEMA)


def _value(number: int, cursor: duckdb.DuckDBPyConnection) -> Any:
    if number in _LISTS:
        return [row[0] for row in cursor.execute(_LISTS[number]).fetchall()]
    if number == _CONVERSIONS:
        return []
    if _KINDS[number] == _BOOL:
        return number in _TRUE
    values: dict[int, Any] = {**_STRINGS, **_NUMBERS, **_BITMASKS}
    return values[number]
