"""Batches by Flight become the records that the same events become alone."""

import asyncio
import json

import pyarrow as pa
import pytest

from streamapp.core.errors import Reject
from streamapp.gateway.batches import Batches
from streamapp.gateway.stamp import stamp
from streamapp.transport.bundle import Bundle

ROWS = [
    {"id": "a", "type": "T", "source": "/s", "conversation_id": "c", "message": "hi", "time": "2026-11-22T09:30:00Z"},
    {"id": "b", "type": "T", "message": "hi"},
    {"id": "c", "message": "untyped", "time": "2026-11-22T09:30:00+02:00"},
    {"id": "d", "type": "bad\u0001", "message": "a control character"},
    {"id": "e" * 513, "type": "T", "message": "a long id"},
    {"id": "f", "type": "T", "time": "noon"},
    {"id": "g", "type": "é", "conversation_id": "ü", "message": "\U0001f600"},
    {"id": "h", "source": "x" * 512, "message": "x" * (1 << 20)},
]  # fmt: skip


def batch_of(rows):
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.RecordBatch.from_pydict({name: [row.get(name) for row in rows] for name in names})


async def taken(gate, rows, *, whole=False):
    """What the rows are told, and the records on the log."""
    batches = Batches(gate.gateway, asyncio.get_running_loop())
    outcomes = await asyncio.to_thread(batches.take, "events.raw", batch_of(rows), whole=whole)
    told = [one.code if isinstance(one, Reject) else one for one in outcomes]
    return told, [record for _, record in gate.producer.records]


def alone(row, received_us):
    """The record of one event by itself, or the code of why it is none."""
    names = dict.fromkeys(name for one in ROWS for name in one)
    value = json.dumps(
        {n: row[n] for n in names if n in row}, ensure_ascii=False, separators=(",", ":")
    )
    try:
        return stamp(value.encode(), source="/flight", received_us=received_us, bytes_max=1 << 20)
    except Reject as error:
        return error.code


async def test_what_lands_is_what_each_row_becomes_alone(gate):
    told, records = await taken(gate, ROWS)
    expected = [alone(row, 0) for row in ROWS]
    assert told == [one if isinstance(one, str) else one.id for one in expected]
    good = [one.record for one in expected if not isinstance(one, str)]
    assert len(good) == 4
    assert {one for one in told if "." in one} == {"event.field", "event.time", "event.too_large"}
    for record, wanted in zip(records, good, strict=True):
        is_timed = b'"time"' in wanted.value
        headers, wanted_headers = dict(record.headers), dict(wanted.headers)
        if not is_timed:  # it has the time at which it came
            assert headers.pop("ce_time") > wanted_headers.pop("ce_time")
        assert (record.value, record.key) == (wanted.value, wanted.key)
        assert headers == wanted_headers


async def test_many_rows_stay_in_order_and_go_packed(gate, monkeypatch):
    rows = [{"id": f"e-{n}", "type": "T", "message": f"number {n}"} for n in range(10_000)]
    rows[5_000]["time"] = "noon"
    sent = []
    send = gate.producer.send

    async def seen(topic, records):
        sent.append(type(records))
        return await send(topic, records)

    monkeypatch.setattr(gate.producer, "send", seen)
    told, records = await taken(gate, rows)
    assert told == [row["id"] if "time" not in row else "event.time" for row in rows]
    assert [record.key.decode() for record in records] == [
        one for one in told if one != "event.time"
    ]
    assert len(sent) == 1
    assert issubclass(sent[0], Bundle)


@pytest.mark.parametrize("bad", [0, 4_095, 4_096, 9_999])
async def test_one_bad_row_refuses_all_where_that_is_asked(gate, bad):
    rows = [{"id": f"e-{n}", "message": "x"} for n in range(10_000)]
    rows[bad]["time"] = "noon"
    told, records = await taken(gate, rows, whole=True)
    assert (told[bad], told.count("event.time"), records) == ("event.time", 1, [])


async def test_what_the_log_refuses_costs_only_itself(gate):
    gate.producer.record_bytes_max = 1_000
    rows = [{"id": f"e-{n}", "message": "x" * (2_000 if n == 7 else 1)} for n in range(20)]
    told, records = await taken(gate, rows)
    assert told == [f"e-{n}" if n != 7 else "record.too_large" for n in range(20)]
    assert len(records) == 19
