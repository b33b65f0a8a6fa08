"""Whatever is killed and however the log is cut, a group's topics hold each row once."""

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pytest
from flow_bench import Bench, graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.agents.flow import sending
from streamapp.agents.flow.record import Mark, decode, encode, mark_of
from streamapp.agents.flow.units import Repeats, rows_of
from streamapp.core.errors import Halt, Refuse
from streamapp.transport.clients import Outgoing
from streamapp.workflow.data.json_rows import parse
from streamapp.workflow.data.recovering import Record

STAGES = [
    {"name": "counted", "service": "demo", "operation": "words"},
    {"name": "sums", "service": "demo", "operation": "pairs", "depends_on": ["counted"],
     "config": {"size": 3}},
]  # fmt: skip
OUTPUTS = {
    "all": {"source": "counted", "format": "json"},
    "sums": {"source": "sums", "format": "json"},
}
KILLS = st.lists(st.sampled_from(["no", "before", "after"]), max_size=12)
SIZES = st.lists(st.integers(1, 4), max_size=12)


class Found(NamedTuple):
    """A record of somebody else."""

    value: bytes
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None
    headers: tuple = ()


def expected(rows):
    good = [{**row, "words": len(row["text"].split())} for row in rows if row["text"] is not None]
    numbers = [row["n"] for row in good]
    groups = [numbers[at : at + 3] for at in range(0, len(numbers), 3)]
    return good, [{"sum": sum(group), "rows": len(group)} for group in groups]


def records(bench, topic):
    return list(bench.log.read(topic, 0, 0).records)


def some_rows(count):
    texts = ["a", "a b", None, "a b c"]
    return [{"n": n, "text": texts[n % 4]} for n in range(count)]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 23), feed_kills=KILLS, kills=KILLS, sizes=SIZES)
async def test_rows_state_and_asides_survive_kills(count, feed_kills, kills, sizes, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    rows = some_rows(count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        bench = Bench(graph(path, STAGES, OUTPUTS, rows))
        assert await bench.feed(feed_kills) == 1
        await bench.work("after-rows", sizes, kills)
        good, sums = expected(rows)
        found, asides, _ = await bench.rows("all", path)
        assert found == good
        assert [each for _, _, bad in asides for each in bad] == [
            r for r in rows if r["text"] is None
        ]
        assert {(stage, why) for stage, why, _ in asides} <= {("counted", "no text")}
        assert (await bench.rows("sums", path))[0] == sums


async def test_a_stage_of_its_own_is_another_group_and_leaves_out_repeats(tmp_path):
    own = [STAGES[0], {**STAGES[1], "scale": "own"}]
    rows = some_rows(10)
    bench = Bench(graph(tmp_path, own, OUTPUTS, rows))
    await bench.feed()
    await bench.work("after-rows")
    first = records(bench, "t.counted")[0]  # written once more by one that was taken for dead
    bench.log.append("t.counted", [Outgoing(first.value, headers=first.headers, partition=0)])
    await bench.work("sums")
    assert (await bench.rows("sums", tmp_path))[0] == expected(rows)[1]


async def test_a_second_run_begins_anew_and_is_told_from_the_first(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, some_rows(5)))
    assert await bench.feed() == 1
    assert await bench.feed() == 1  # nobody has taken its rows
    await bench.work("after-rows")
    rows, _, ended = await bench.rows("sums", tmp_path)
    assert await bench.feed(collected=1) == 2
    await bench.work("after-rows")
    again, _, _ = await bench.rows("sums", tmp_path, run=2, begin=ended)
    assert again == rows == expected(some_rows(5))[1]


async def test_inputs_that_changed_since_a_feeding_began_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    monkeypatch.setattr(sending, "_RECORDS_AT_ONCE", 1)
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, some_rows(9)))
    await bench.feed(["no", "no", "leave"])
    graph(tmp_path, STAGES, OUTPUTS, [{"n": 7, "text": "x"}, *some_rows(9)])
    with pytest.raises(Refuse, match="is not what it was"):
        await bench.feed()
    graph(tmp_path, STAGES, OUTPUTS, some_rows(2))
    with pytest.raises(Refuse, match="is not what it was"):
        await bench.feed()
    graph(tmp_path, STAGES, OUTPUTS, some_rows(9))
    await bench.feed()
    await bench.work("after-rows")
    assert (await bench.rows("all", tmp_path))[0] == expected(some_rows(9))[0]


async def test_a_result_too_large_for_a_record_is_halved_and_one_row_too_large_is_named(tmp_path):
    rows = [{"n": n, "text": f"{n} " * 400} for n in range(8)]
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}, rows))
    for row in rows:
        bench.log.append("t.rows", [Outgoing(msgspec.json.encode(row), partition=0)])
    bench.log.append(
        "t.rows", [encode(Mark(8, 9, 0, end=True), bench.binding.schemas["rows"].empty_table())]
    )
    limit = 65_536 + 1_900
    await bench.work("after-rows", [9], record_bytes_max=limit)
    found = [decode(record) for record in records(bench, "t.all")]
    assert [row["n"] for part in found for row in part.rows.to_pylist()] == list(range(8))
    assert len(found) > 1
    bounds = [(part.mark.first, part.mark.next) for part in found]
    assert [first for first, _ in bounds] == [0, *(next_ for _, next_ in bounds[:-1])]


async def test_rows_of_others_come_as_json_and_what_is_none_is_set_aside(tmp_path):
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}))
    for value in [b'{"n": 5, "text": "x y"}', b"nope", b'[{"n": 6, "text": "z"}]', b'{"n": "q"}']:
        bench.log.append("t.rows", [Outgoing(value, partition=0)])
    await bench.work("after-rows", [9])
    (record,) = records(bench, "t.all")
    part = decode(record)
    assert [row["n"] for row in part.rows.to_pylist()] == [5, 6]
    assert [aside.rows.to_pylist()[0]["value"] for aside in part.asides] == ["nope", '{"n": "q"}']


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (pa.int64(), b"99999999999999999999", "too large"),
        (pa.uint8(), b"-1", "negative"),
        (pa.int64(), b"1.5", "n: 1.5 is not int64"),
        (pa.timestamp("us"), b"0.5", "n: 0.5 is not timestamp"),
    ],
    ids=str,
)
def test_a_number_that_does_not_fit_its_column_is_no_row(tmp_path, kind, value, said):
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}))
    whole, other = b'{"n": 2.0}', b'{"n": ' + value + b"}"
    bench.log.append("t.rows", [Outgoing(each, partition=0) for each in (whole, other)])
    schema = pa.schema([("n", kind)])
    rows, bad, _ = rows_of(records(bench, "t.rows"), schema, Repeats())
    assert rows.equals(pa.table([pa.array([2], kind)], schema=schema))
    ((text, why),) = bad
    assert (text.to_pylist(), said in why) == ([{"value": other.decode()}], True)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.map_(pa.string(), pa.int64()), b"[null]"),  # which Arrow ends the process for
        (pa.list_(pa.map_(pa.string(), pa.int64())), b"[[null]]"),
        (pa.struct([("m", pa.map_(pa.string(), pa.int64()))]), b'{"m": [null]}'),
        (pa.duration("us"), b'"1 s"'),
        (pa.month_day_nano_interval(), b'"1 month"'),
    ],
    ids=str,
)
def test_a_value_that_arrow_cannot_make_is_no_row(kind, value):
    schema = pa.schema([("n", kind)])
    record = Found(b'{"n": ' + value + b"}")
    rows, bad, _ = rows_of([record], schema, Repeats())
    assert (rows.num_rows, len(bad)) == (0, 1)


def test_an_object_is_a_map():
    schema = pa.schema([("n", pa.map_(pa.string(), pa.int64()))])
    rows, bad, _ = rows_of([Found(b'[{"n": {"a": 1}}, {"n": null}]')], schema, Repeats())
    assert (rows["n"].to_pylist(), bad) == ([[("a", 1)], None], [])


TIMES = pa.schema([
    ("at", pa.timestamp("us", "UTC")), ("local", pa.timestamp("ms")), ("on", pa.date32()),
    ("n", pa.int64()),
])  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        '{"at": "2026-08-24T06:02:33.25+02:00", "local": "2026-08-24 06:02:33", "on": "1971-01-21"}',
        '{"at": "2026-08-24T06:02:33Z", "n": 7, "local": null}',
        '{"local": "2026-08-24T06:02", "on": "1600-01-01", "n": 0}',
    ],
)
def test_times_may_be_texts_as_in_files(tmp_path, row):
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}))
    bad = '{"at": "yesterday"}'
    for each in (row, bad):
        bench.log.append("t.rows", [Outgoing(each.encode(), partition=0)])
    taken, ((text, why),), _ = rows_of(records(bench, "t.rows"), TIMES, Repeats())
    assert taken.equals(pa.Table.from_batches([parse([Record(1, row.encode())], TIMES)]))
    assert text.to_pylist() == [{"value": bad}]
    assert "yesterday" in why


async def test_who_looks_where_a_topic_ends_waits_for_what_is_being_sent(tmp_path):
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}, some_rows(3)))
    await bench.feed()
    agent, generations = bench.agent("after-rows", []), [1]
    agent._generation = lambda: generations[-1]
    sending, may_send = asyncio.Event(), asyncio.Event()
    send = agent._producer.send

    async def slow(topic, records):
        sending.set()
        await may_send.wait()
        return await send(topic, records)

    agent._producer.send = slow
    work = asyncio.create_task(bench.run(agent, "after-rows", [1]))
    await sending.wait()
    generations.append(2)  # the partitions are distributed anew, and this one is ours again
    again = asyncio.create_task(agent.start_positions([("t.rows", 0)]))
    for _ in range(100):
        await asyncio.sleep(0)
    may_send.set()
    await work
    assert await again == {("t.rows", 0): 1}
    await agent.stop()


async def test_rows_of_others_are_taken_after_a_run_was_fed(tmp_path):
    own = [STAGES[0], {**STAGES[1], "scale": "own", "config": {"size": 1}}]
    bench = Bench(graph(tmp_path, own, OUTPUTS, some_rows(5)))
    await bench.feed()
    for name in ("after-rows", "sums"):
        await bench.work(name)
    for n in (100, 101):
        value = msgspec.json.encode({"n": n, "text": "x"})
        bench.log.append("t.rows", [Outgoing(value, partition=0)])
    for name in ("after-rows", "sums"):
        await bench.work(name)
    parts = [decode(record) for record in records(bench, "t.sums")]
    found = [row["sum"] for part in parts if not part.mark.run for row in part.rows.to_pylist()]
    assert found == [100, 101]


def test_a_record_is_read_back_and_anothers_is_told(tmp_path):
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}))
    rows = bench.binding.schemas["rows"].empty_table()
    bench.log.append("t.all", [encode(Mark(3, 7, 2), rows, b"state")])
    (record,) = records(bench, "t.all")
    part = decode(record)
    assert (part.mark.first, part.mark.next, part.mark.run, part.state) == (3, 7, 2, b"state")
    bench.log.append("t.all", [Outgoing(b"{}", partition=0)])
    other = records(bench, "t.all")[1]
    assert mark_of(other) is None
    with pytest.raises(Halt, match="none of ours"):
        decode(other)


async def test_rows_on_several_partitions_are_each_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    rows = [row for row in some_rows(30) if row["text"]]
    bench = Bench(graph(tmp_path, STAGES[:1], {"all": OUTPUTS["all"]}, rows), partitions=2)
    await bench.feed(["no", "after", "no", "before", "no", "after"])
    await bench.work("after-rows", [1, 2], ["no", "after", "before"])
    found, _, _ = await bench.rows("all", tmp_path)
    assert sorted(row["n"] for row in found) == [row["n"] for row in rows]
