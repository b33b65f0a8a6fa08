import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pyarrow as pa
import pyarrow.ipc
import pytest
from arrow_streams import MOMENT, RECEIVED_US, bomb, made, stream, table
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamapp.core.batch import EVENT_SCHEMA
from streamapp.core.errors import Reject
from streamapp.core.event import parse_event
from streamapp.gateway.stamp import stamp

ARROW = {"Content-Type": "application/vnd.apache.arrow.stream"}


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
async def test_rows_are_events(gate, compression):
    events = table(
        [
            {
                "id": "e1",
                "type": "T",
                "conversation_id": "c",
                "message": "hi",
                "time": MOMENT,
                "n": 1,
            },
            {"id": None, "type": None, "message": "ho", "time": None, "plan": {"name": "gold"}},
        ]
    )
    headers = ARROW | {"Idempotency-Key": "k"}
    body = stream(events.slice(0, 1), events.slice(1), compression=compression)
    status, answer = await gate.post("/v1/events", body, headers=headers)
    assert (status, answer["accepted"], answer["rejected"]) == (200, 2, 0)
    assert [(one["line"], one["id"]) for one in answer["events"]] == [(1, "e1"), (2, "k-2")]
    assert [json.loads(value) for value in gate.producer.values] == [
        {"id": "e1", "type": "T", "conversation_id": "c", "message": "hi", "n": 1,
         "time": "2026-11-22T09:30:00.123456Z"},
        {"message": "ho", "plan": {"name": "gold"}},
    ]  # fmt: skip
    first, second = (gate.producer.headers(n) for n in (0, 1))
    assert first["ce_time"] == "2026-11-22T09:30:00.123456Z"
    assert (first["ce_type"], second["ce_type"], second["ce_source"]) == (
        "T",
        "event",
        "/v1/events",
    )
    assert [record.key for _, record in gate.producer.records] == [b"c", b"k-2"]
    assert gate.gateway.budget.events == gate.gateway.budget.bytes == 0


async def test_bad_rows_cost_only_themselves(gate):
    events = table(
        [
            {"id": "ok", "duration_ms": 1.5, "time": 0, "message": "x"},
            {"id": "i" * 513, "duration_ms": 0.0, "time": 0, "message": "x"},
            {"id": "d", "duration_ms": -1.0, "time": 0, "message": "x"},
            {"id": "t", "duration_ms": None, "time": 1 << 60, "message": "x"},
            {"id": "big", "duration_ms": None, "time": None, "message": "x" * (1 << 20)},
            {"id": "ok2", "duration_ms": None, "time": None, "message": None},
        ]
    )
    status, answer = await gate.post("/v1/events", stream(events), headers=ARROW)
    codes = [one.get("code", one["status"]) for one in answer["events"]]
    assert (status, codes) == (
        207,
        ["received", "event.field", "event.field", "event.time", "event.too_large", "received"],
    )
    assert [one["line"] for one in answer["events"]] == [1, 2, 3, 4, 5, 6]
    assert [json.loads(value)["id"] for value in gate.producer.values] == ["ok", "ok2"]


async def test_accepted_gzipped_and_to_a_named_topic(gate):
    body = gzip.compress(stream(table([{"message": "x"}])))
    headers = ARROW | {"Content-Encoding": "gzip"}
    path = "/v1/events/events.raw?wait=accepted"
    assert (await gate.post(path, body, headers=headers))[0] == 202
    await gate.gateway.delivery.flush()
    assert gate.producer.values == [b'{"message":"x"}']


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
keys = texts | st.just("x" * 513)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.none() | keys,
        "type": st.none() | keys,
        "source": st.none() | keys,
        "conversation_id": st.none() | keys,
        "actor": st.none() | keys,
        "message": st.none() | texts,
        "time": st.none()
        | st.sampled_from(["2026-11-22T09:30:00Z", "noon", "0001-01-01T00:00:00+14:00"]),
        "duration_ms": st.none() | st.floats(-2, 1e9, width=32),
        "attachments": st.none() | st.sampled_from(["[1]", '{"a":{"b":2}}', "null", "{", "1,2"]),
        "payload": st.none()
        | st.sampled_from(["{}", '{"z": 1}', '{"id": 5}', "{", "[1]", ' {"é":[]} ', ""]),
        'odd"name': st.none() | texts,
        "z": st.none() | st.lists(st.integers(-5, 5), max_size=2),
    },
)
TYPES = {
    **dict.fromkeys(
        ["id", "type", "source", "conversation_id", "actor", "message", "time"], pa.string()
    ),
    **dict.fromkeys(["attachments", "payload", 'odd"name'], pa.string()),
    "duration_ms": pa.float32(),
    "z": pa.list_(pa.int16()),
}


def as_json(row):
    """The JSON event that a row stands for."""
    row = {name: cell for name, cell in row.items() if cell is not None}
    raw = {name: row.pop(name) for name in ("attachments", "payload") if name in row}
    text = json.dumps(row, ensure_ascii=False)
    if "attachments" in raw:
        text = text[:-1] + (", " if row else "") + f'"attachments":{raw["attachments"]}' + "}"
    if "payload" in raw:
        inner = raw["payload"].strip()
        if not (inner.startswith("{") and inner.endswith("}")):
            inner = f'{{"payload":{inner}}}'
        text = ", ".join(part for part in (text[1:-1].strip(), inner[1:-1].strip()) if part).join(
            "{}"
        )
    return text.encode()


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=6).filter(any))
@example([{"payload": "{}"}, {"payload": '{"z": 1}', "z": [1]}])
@example([{"time": "noon", "id": "x" * 513}])
def test_a_row_gets_the_verdict_of_its_json(rows):
    outcomes = made(stream(table(rows, **TYPES)))
    assert [line for line, _ in outcomes] == list(range(1, len(rows) + 1))
    for row, (line, outcome) in zip(rows, outcomes, strict=True):
        try:
            wanted = stamp(
                as_json(row), source="/v1/events", received_us=RECEIVED_US, bytes_max=1 << 20,
                id_if_none=f"k-{line}",
            )  # fmt: skip
        except Reject as error:
            assert isinstance(outcome, Reject), (row, error)
            assert outcome.code.split(".")[0] == error.code.split(".")[0]
        else:
            assert not isinstance(outcome, Reject), (row, outcome)
            assert outcome[:2] == wanted[:2]
            assert outcome.record.key == wanted.record.key
            assert list(outcome.record.headers) == list(wanted.record.headers)
            assert same(parse_event(outcome.record.value), parse_event(wanted.record.value))


@pytest.mark.parametrize("name", ["payload", "attachments"])
@pytest.mark.parametrize("text", ['1,"id":"forged"', '{},"id":"forged","x":{}', "[" * 100_000])
def test_text_of_json_is_one_value_and_says_nothing_beside_it(name, text):
    ((_, bad), (_, good)) = made(stream(table([{name: text}, {name: "{}"}])))
    assert (bad.code, good.id) == ("event.json", "k-2")


def same(one, other):
    one, other = msgspec.structs.asdict(one), msgspec.structs.asdict(other)
    for event in (one, other):
        event["payload"] = json.loads(event["payload"])
        event["attachments"] = json.loads(event["attachments"] or "null")
    return one == other


@pytest.mark.parametrize(
    ("kind", "cells", "shown"),
    [
        (pa.dictionary(pa.int8(), pa.string()), ["a", "a", None], ["a", "a", None]),
        (pa.string_view(), ["a", "b" * 40, None], ["a", "b" * 40, None]),
        (pa.large_string(), ['a"\\\n', "é", None], ['a"\\\n', "é", None]),
        (pa.uint64(), [2**64 - 1, 0, None], [2**64 - 1, 0, None]),
        (pa.bool_(), [True, False, None], [True, False, None]),
        (pa.float64(), [1.5, float("nan"), None], [1.5, None, None]),
        (pa.decimal128(9, 2), [Decimal("1.50"), None, None], ["1.50", None, None]),
        (pa.binary(), [b"\xff", b"", None], ["/w==", "", None]),
        (pa.timestamp("ns"), [MOMENT.replace(tzinfo=None), None, None], ["2026-11-22T09:30:00.123456", None, None]),
        (pa.date32(), [MOMENT.date(), None, None], ["2026-11-22", None, None]),
        (pa.duration("us"), [timedelta(seconds=90), None, None], ["PT90S", None, None]),
        (pa.list_(pa.float32()), [[1.5, None], [], None], [[1.5, None], [], None]),
        (pa.map_(pa.string(), pa.int8()), [{"a": 1}, {}, None], [{"a": 1}, {}, None]),
        (pa.struct({"a": pa.list_(pa.string())}), [{"a": ["x"]}, None, None], [{"a": ["x"]}, None, None]),
        (pa.null(), [None, None, None], [None, None, None]),
    ],
    ids=str,
)  # fmt: skip
def test_other_columns_are_json_of_their_kind(kind, cells, shown):
    outcomes = made(stream(pa.table({"id": ["1", "2", "3"], "x": pa.array(cells, kind)})))
    assert [json.loads(one.record.value).get("x") for _, one in outcomes] == shown


@pytest.mark.parametrize(
    ("kind", "cell", "shown"),
    [
        (pa.timestamp("s"), 1, "1970-01-01T00:00:01.000000Z"),
        (pa.timestamp("ms", "Europe/Berlin"), -1, "1969-12-31T23:59:59.999000Z"),
        (pa.timestamp("ns"), 1_999, "1970-01-01T00:00:00.000001Z"),
        (pa.timestamp("us"), -62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (pa.timestamp("us"), -62_135_596_800_000_001, None),
        (pa.timestamp("s"), 253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        (pa.timestamp("s"), 253_402_300_800, None),
        (pa.timestamp("s"), 2**63 - 1, None),
        (pa.int64(), 1_500, "1970-01-01T00:00:01.500000Z"),
        (pa.int32(), -1_500, "1969-12-31T23:59:58.500000Z"),
        (pa.int64(), 2**63 - 1, None),
    ],
    ids=str,
)
def test_event_time_is_the_same_instant_in_every_type(kind, cell, shown):
    [(_, outcome)] = made(stream(pa.table({"time": pa.array([cell], pa.int64()).cast(kind)})))
    if shown is None:
        assert outcome.code == "event.time"
    else:
        assert dict(outcome.record.headers)["ce_time"].decode() == shown
        micros = parse_event(outcome.record.value).time_us
        assert micros == round(
            (datetime.fromisoformat(shown) - datetime(1970, 1, 1, tzinfo=UTC))
            / timedelta(microseconds=1)
        )


def test_what_is_nested_as_deep_as_arrow_can_is_an_event():
    kind, cell = pa.int8(), 1
    for _ in range(63):
        kind, cell = pa.list_(kind), [cell]
    [(_, outcome)] = made(stream(pa.table({"a": pa.array([cell], kind)})))
    assert json.loads(outcome.record.value) == {"a": cell}
    parse_event(outcome.record.value)


def test_what_the_store_exports_comes_in_again():
    row = {
        "source_offset": 7, "id": "e1", "type": "T", "source": "/s", "conversation": "c",
        "actor": "human", "time": MOMENT, "ingest_time": MOMENT, "text": "hi", "duration_ms": 2.0,
        "payload": '{"plan":"gold"}', "attachments": '[{"name":"a.png"}]',
    }  # fmt: skip
    [(_, outcome)] = made(stream(pa.Table.from_pylist([row], EVENT_SCHEMA)))
    event = parse_event(outcome.record.value)
    assert (event.id, event.text, event.conversation, event.time_us) == (
        "e1",
        "hi",
        "c",
        int(MOMENT.timestamp() * 1e6),
    )
    assert event.attachments == '[{"name":"a.png"}]'
    assert json.loads(event.payload)["plan"] == "gold"


def wide_rows():
    """Names alone make 10 GB of JSON."""
    return stream(pa.table({"n" * 1_000_000: pa.array([1] * 10_000, pa.int8())}))


def long_dictionary():
    long = pa.array(["x" * 10_000])
    return stream(
        pa.table({"m": pa.DictionaryArray.from_arrays(pa.array([0] * 9_000, pa.int8()), long)})
    )


def long_view():
    one = pa.array(["x" * 10_000], pa.string_view()).buffers()
    values = pa.Array.from_buffers(
        pa.string_view(), 9_000, [None, pa.py_buffer(one[1].to_pybytes()[:16] * 9_000), one[2]]
    )
    return stream(pa.table({"m": values}))


def nothing_by_the_billion():
    """A list of 2**40 nulls, which have no bytes."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(8, "little") for n in (0, 1 << 40)))
    nulls = pa.Array.from_buffers(pa.null(), 1 << 40, [None], null_count=1 << 40)
    lists = pa.Array.from_buffers(pa.large_list(pa.null()), 1, [None, offsets], children=[nulls])
    return stream(pa.table({"a": lists}))


def bad_utf8():
    return stream(pa.table({"message": pa.array([b"\xff"]).view(pa.string())}))


def union():
    kinds = pa.array([0], pa.int8())
    return stream(pa.table({"a": pa.UnionArray.from_sparse(kinds, [pa.array([1])])}))


BAD = {
    "bomb": (bomb, 413, "request.too_large"),
    "long names": (wide_rows, 413, "request.too_large"),
    "dictionary": (long_dictionary, 413, "request.too_large"),
    "views": (long_view, 413, "request.too_large"),
    "nulls": (nothing_by_the_billion, 413, "request.too_large"),
    "rows": (lambda: stream(pa.table({"a": pa.nulls(10_001)})), 413, "request.too_large"),
    "columns": (
        lambda: stream(pa.table({f"c{n}": [1] for n in range(1_001)})),
        413,
        "request.too_large",
    ),
    "batches": (
        lambda: stream(*[pa.table({f"c{n}": [1] for n in range(500)})] * 250),
        413,
        "request.too_large",
    ),
    "two streams": (lambda: 2 * stream(pa.table({"a": [1]})), 400, "event.arrow"),
    "no row": (lambda: stream(pa.table({"a": pa.nulls(0)})), 400, "request.empty"),
    "nothing": (lambda: b"", 400, "request.empty"),
    "json": (lambda: b'{"message":"x"}', 400, "event.arrow"),
    "cut off": (lambda: stream(pa.table({"a": [1] * 99}))[:-80], 400, "event.arrow"),
    "utf8": (bad_utf8, 400, "event.arrow"),
    "union": (union, 400, "event.field"),
    "names": (lambda: stream(pa.table([[1], [2]], names=["a", "a"])), 400, "event.duplicate_key"),
    "id": (lambda: stream(pa.table({"id": [1.5]})), 400, "event.field"),
    "message": (lambda: stream(pa.table({"message": [b"x"]})), 400, "event.field"),
    "time": (lambda: stream(pa.table({"time": [1.5]})), 400, "event.field"),
    "duration": (lambda: stream(pa.table({"duration_ms": ["1"]})), 400, "event.field"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_body_that_is_not_taken_is_a_problem_and_costs_nothing(gate, name):
    body, status, code = BAD[name]
    got, problem = await gate.post("/v1/events", body(), headers=ARROW)
    assert (got, problem["code"][: len(code)]) == (status, code)
    assert problem["fix"]
    assert gate.producer.records == []
    assert gate.gateway.budget.bytes == gate.gateway.budget.events == 0
