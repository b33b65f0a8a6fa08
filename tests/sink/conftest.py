"""Enriched records to store, made of what a test cares about."""

from types import SimpleNamespace

import pytest
import sinks
from sinks import COLUMNS, reject

from streamapp.sink import Store

HOUR_US = 3_600_000_000


def event(offset, *, name=None, ingest_us=None, time_us=None, **given):
    """One event of source offset ``offset``; everything follows from the offset unless given."""
    ingest_us = 1_000_000 * offset if ingest_us is None else ingest_us
    times = {"time": ingest_us if time_us is None else time_us, "ingest_time": ingest_us}
    return sinks.event(offset, actor="ann", **times, **({"id": name} if name else {}), **given)


def record(first, next_, events=None, *, rejects=(), lost=0, **given):
    """The enriched record of ``[first, next_)``; all its offsets are events unless given."""
    dead = {one.source_offset for one in rejects}
    if events is None:
        events = [event(o) for o in range(first, next_) if o not in dead and not lost]
    return sinks.record(first, next_, events, rejects=rejects, lost=lost, **given)


def all_rows(store, sql):
    """Rows of a query through a reader of its own."""
    cursor = store.reader()
    try:
        return cursor.execute(sql).fetchall()
    finally:
        cursor.close()


@pytest.fixture(scope="session")
def make():
    """The factories above, in one hand."""
    return SimpleNamespace(
        event=event, record=record, reject=reject, rows=all_rows, COLUMNS=COLUMNS, HOUR_US=HOUR_US
    )


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "store.duckdb")


@pytest.fixture
def open_store():
    """``Store.open`` with this file's columns; closed when the test ends."""
    stores = []

    def opened(path=":memory:", **options):
        store = Store.open(path, **({"columns": COLUMNS} | options))
        stores.append(store)
        return store

    yield opened
    for store in stores:
        store.close()
