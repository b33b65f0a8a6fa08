"""Records of equal keys are told the first of them, whatever their keys are made of."""

import math
from datetime import date

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.services.integrate.config import Gathered
from streamapp.services.integrate.keys import Keys
from streamapp.services.integrate.layout import layout_of

SCHEMA = pa.schema([("name", pa.string()), ("born", pa.date32()), ("size", pa.float64())])
ROWS = st.lists(
    st.tuples(
        st.sampled_from([None, "", "a", "ab", "a key that is longer than twelve bytes"]),
        st.sampled_from([None, date(2000, 2, 29), date(1970, 1, 1)]),
        st.sampled_from([None, 0.0, -0.0, 1.5, math.inf]),
    ),
    max_size=30,
)
FIELDS = st.sampled_from([("name",), ("size",), ("name", "born"), ("size", "name", "born")])


def groups(rows, fields):
    columns = list(zip(*rows, strict=True)) or [[], [], []]
    records = pl.DataFrame(
        pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], SCHEMA)
    )
    config = Gathered(key_fields=fields)
    keys = Keys(config, layout_of(config, {"rows": SCHEMA}, {}, 1))
    return keys.groups(keys.of(records, "place")).rows()


def expected(rows, fields):
    """Place, and first place of an equal key, of those without null and empty texts."""
    at = [SCHEMA.names.index(name) for name in fields]
    made = [tuple(row[place] for place in at) for row in rows]
    whole = [place for place, key in enumerate(made) if None not in key and "" not in key]
    return [(place, next(p for p in whole if made[p] == made[place])) for place in whole]


@given(ROWS, FIELDS)
def test_a_record_is_told_the_first_of_its_key(rows, fields):
    assert groups(rows, fields) == expected(rows, fields)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, FIELDS, st.integers(0, 1))
def test_keys_of_one_hash_are_told_apart(monkeypatch, rows, fields, hashes):
    asked = []

    def alike(expression):
        asked.append(expression)
        return pl.int_range(pl.len(), dtype=pl.UInt64) * 0 + hashes

    with monkeypatch.context() as patched:
        patched.setattr(pl.Expr, "hash", alike)
        assert groups(rows, fields) == expected(rows, fields)
    assert asked


@pytest.mark.parametrize("fields", [("size",), ("size", "name")])
def test_what_is_no_number_is_equal_to_itself(fields):
    rows = [("a", None, math.nan), ("a", None, 1.0), ("a", None, math.nan)]
    assert groups(rows, fields) == [(0, 0), (1, 1), (2, 0)]
