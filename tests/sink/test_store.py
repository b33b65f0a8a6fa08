"""What only the DuckDB store does; what every sink promises is in tests/contract/test_sink.py."""

from pathlib import Path

import pyarrow as pa
import pytest

from streamapp.core.errors import Retry
from streamapp.sink import keyed
from streamapp.sink.schema import CORE_FIELDS


def test_a_table_has_the_core_s_columns_and_then_the_stages(make, open_store):
    cursor = open_store().reader()
    table = cursor.sql("SELECT * FROM events").to_arrow_table()
    cursor.close()
    assert table.column_names == [field.name for field in CORE_FIELDS] + list(make.COLUMNS)
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")


def test_payload_that_duckdb_cannot_keep_costs_only_its_event(make, open_store):
    store = open_store()
    bad = make.event(1, payload='{"a": "\\ud800"}')
    sent = make.record(0, 3, [make.event(0), bad, make.event(2)])
    written = store.write([sent])
    assert (written.rows, written.dead) == (2, 1)
    assert make.rows(store, "SELECT source_offset, stage, code, value FROM dead") == [
        (1, "store", "store.json", b'{"a": "\\ud800"}')
    ]
    assert store.write([sent]).duplicates_by_range == 3
    assert make.rows(store, 'SELECT "first", "next", rows FROM ledger') == [(0, 3, 2)]


def test_work_between_two_writes_is_one_transaction(make, open_store):
    store = open_store()
    store.write([make.record(0, 4)])

    def drop(writer, then):
        writer.execute("DELETE FROM events WHERE source_offset < 2").fetchall()
        if then:
            raise ValueError(then)
        return "done"

    with pytest.raises(ValueError, match="no"):
        store.exclusively(lambda writer: drop(writer, "no"))
    assert make.rows(store, "SELECT count(*) FROM events") == [(4,)]
    assert store.exclusively(lambda writer: drop(writer, "")) == "done"
    assert make.rows(store, "SELECT count(*) FROM events") == [(2,)]
    assert store.write([make.record(0, 5)]).duplicates_by_range == 4
    store.close()
    with pytest.raises(Retry, match="closed"):
        store.exclusively(lambda writer: drop(writer, ""))


def test_a_checkpoint_on_demand_empties_the_wal(make, open_store, path):
    store, wal = open_store(path), Path(f"{path}.wal")
    store.write([make.record(0, 4)])
    assert wal.stat().st_size > 0
    assert store.checkpoint()
    assert not wal.exists() or wal.stat().st_size == 0


def test_keys_made_before_are_those_made_here(make, open_store):
    store, events = open_store(), [make.event(0), make.event(1, name="id-0"), make.event(2)]
    assert store.write([keyed(make.record(0, 3, events))]).duplicates_by_id == 1
    late = make.record(0, 5, [*events, make.event(3), make.event(4, name="id-2")])
    written = store.write([keyed(late)])
    assert (written.rows, written.duplicates_by_range, written.duplicates_by_id) == (1, 3, 1)
