"""Windows on several partitions: rows go to those of their key, and time is the least of all."""

import math
import tempfile
from itertools import accumulate
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow_bench import Bench, graph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.agents.flow import sending
from streamapp.agents.flow.fronts import Fronts
from streamapp.agents.flow.keyed import partitions_of
from streamapp.agents.flow.record import Mark, decode
from streamapp.core.errors import Halt
from streamapp.plugin import BEFORE_ALL_US
from streamapp.services import call
from streamapp.transport.clients import Outgoing
from streamapp.transport.routing import partition_of
from streamapp.workflow.graph.load import graph_of

TIMED = {"columns": {"ts": "make_timestamp(ts * 1000000)"}}
BY_WHO = {
    "kind": "tumbling", "size": "10s", "time": "ts", "grace": "3s", "by": ["who"],
    "columns": {"total": "sum(n)", "rows": "count(*)"},
}  # fmt: skip
IN_ALL = {
    "kind": "hopping", "size": "20s", "every": "10s", "time": "window_end", "grace": "10s",
    "columns": {"total": "sum(total)", "keys": "count(*)"},
}  # fmt: skip
STAGES = [
    {"name": "timed", "service": "pipeline", "operation": "map", "config": TIMED},
    {"name": "sums", "service": "pipeline", "operation": "window", "depends_on": ["timed"],
     "config": BY_WHO},
    {"name": "all", "service": "pipeline", "operation": "window", "depends_on": ["sums"],
     "config": IN_ALL},
]  # fmt: skip
OUTPUTS = {
    name: {"source": source, "format": "json"}
    for name, source in {"sums": "sums", "all": "all", "same": "sums", "every": "timed"}.items()
}
KILLS = st.lists(st.sampled_from(["no", "no", "before", "after"]), max_size=16)
TURNS = st.lists(st.integers(0, 6), max_size=3)
GROUPS = ("after-rows", "sums", "all")
SIZES = st.lists(st.integers(1, 5), max_size=12)
STEPS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 3), st.sampled_from(["a", "b", "c", None])),
    min_size=1, max_size=24,
)  # fmt: skip


def rows_of(steps):
    """Rows whose times go up but for the grace."""
    times = accumulate(step for step, _, _ in steps)
    return [
        {"n": n, "ts": at - back, "who": who}
        for n, (at, (_, back, who)) in enumerate(zip(times, steps, strict=True))
    ]


def in_order(rows):
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def expected(rows):
    timed = call("pipeline.map", rows, **TIMED)
    sums = call("pipeline.window", timed, **BY_WHO)
    all_ = call("pipeline.window", sums, **IN_ALL)
    return {"sums": sums, "all": all_, "same": sums, "every": timed}


CASES = {"steps": STEPS, "count": st.integers(2, 3), "kills": KILLS, "sizes": SIZES, "turns": TURNS}
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.mark.timeout(600)
@settings(max_examples=4, **QUIET)
@given(**CASES)
async def test_rows_are_those_of_the_batch_whatever_is_killed(monkeypatch, **case):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    await check(**case)


@pytest.mark.soak
@pytest.mark.timeout(3_000)
@settings(max_examples=300, **QUIET)
@given(**CASES)
async def test_the_same_for_longer(monkeypatch, **case):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    await check(**case)


async def check(steps, count, kills, sizes, turns):
    rows = rows_of(steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        bench = Bench(graph(path, STAGES, OUTPUTS, rows), count)
        assert await bench.feed() == 1
        for most in [*turns, 1_000_000]:  # each group sees some of what is there, and more later
            for name in GROUPS:
                await bench.work(name, sizes, kills, most=most)
        for name, table in expected(rows).items():
            found, asides, _ = await bench.rows(name, path)
            assert in_order(found) == in_order(table.to_pylist())
            assert asides == []


async def test_a_second_run_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    rows = [{"n": n, "ts": n, "who": "ab"[n % 2]} for n in range(30)]
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, rows), 2)
    begin = {}
    for run in (1, 2):
        assert await bench.feed(collected=run - 1) == run
        for name in GROUPS:
            await bench.work(name)
        found, _, begin = await bench.rows("sums", tmp_path, run, begin)
        assert in_order(found) == in_order(expected(rows)["sums"].to_pylist())


async def test_an_input_s_own_rows_are_parted_by_key_in_a_group_for_that(tmp_path):
    times = pa.array([n * 1_000_000 for n in range(9)], pa.timestamp("us"))
    table = pa.table({"n": range(9), "ts": times, "who": list("ababababa")})
    pq.write_table(table, tmp_path / "rows.parquet")
    window = {**STAGES[1], "depends_on": []}
    document = {
        "name": "t", "inputs": {"rows": {"path": "rows.parquet"}}, "stages": [window],
        "outputs": {"sums": OUTPUTS["sums"], "raw": {"source": "rows", "format": "json"}},
    }  # fmt: skip
    bench = Bench(graph_of(document, tmp_path), 2)
    assert [group.steps for group in bench.topology.groups] == [(), ("sums",)]
    assert set(bench.topology.topics) == {"t.rows", "t.rows.rows", "t.sums.keyed", "t.sums"}
    await bench.feed()
    await bench.work("after-rows")
    await bench.work("sums")
    found, _, _ = await bench.rows("sums", tmp_path)
    assert in_order(found) == in_order(call("pipeline.window", table, **BY_WHO).to_pylist())


async def test_rows_of_categories_are_collected_whatever_their_dictionaries(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    times = pa.array([n * 1_000_000 for n in range(6)], pa.timestamp("us"))
    who = pa.array(list("abcdef")).dictionary_encode()
    table = pa.table({"n": range(6), "ts": times, "who": who})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    document = {
        "name": "t", "inputs": {"rows": {"path": "rows.parquet"}},
        "stages": [{**STAGES[1], "depends_on": []}], "outputs": {"sums": OUTPUTS["sums"]},
    }  # fmt: skip
    bench = Bench(graph_of(document, tmp_path), 2)
    assert pa.types.is_dictionary(bench.binding.schemas["sums"].field("who").type)
    await bench.feed()
    for name in ("after-rows", "sums"):
        await bench.work(name)
    found, _, _ = await bench.rows("sums", tmp_path)
    assert in_order(found) == in_order(call("pipeline.window", table, **BY_WHO).to_pylist())


async def test_rows_of_the_workflow_as_it_was_before_are_told(tmp_path):
    rows = [{"n": n, "ts": n, "who": "a"} for n in range(3)]
    before = Bench(graph(tmp_path, STAGES[:2], {"sums": OUTPUTS["sums"]}, rows), 2)
    await before.feed()
    await before.work("after-rows")
    timed = {"columns": {**TIMED["columns"], "name": "who"}}
    sums = {**STAGES[1], "config": {**BY_WHO, "by": ["name"]}}
    stages = [{**STAGES[0], "config": timed}, sums]
    bench = Bench(graph(tmp_path, stages, {"sums": OUTPUTS["sums"]}, rows), 2)
    bench.log = before.log
    agent = bench.agent("after-rows", [])
    with pytest.raises(Halt, match='topic t.timed .*\'?"?name"?.*') as told:
        await agent._start_positions([("t.rows", 0)])
    assert told.value.code == "flow.schema"
    await agent.stop()


async def test_time_waits_for_a_partition_until_it_is_idle(tmp_path):
    bench = Bench(graph(tmp_path, STAGES[:2], {"sums": OUTPUTS["sums"]}, rows_of([(1, 0, "a")])), 2)
    first, second = bench.agent("after-rows", []), bench.agent("sums", [])

    async def shown(*rows):
        for at in rows:
            row = msgspec.json.encode({"n": 1, "ts": at, "who": "a"})
            bench.log.append("t.rows", [Outgoing(row, partition=0)])
        await bench.run(first, "after-rows")
        await bench.run(second, "sums")
        records = [r for p in (0, 1) for r in bench.log.read("t.sums", p, 0).records]
        return [row["rows"] for record in records for row in decode(record).rows.to_pylist()]

    assert await shown(1, 2, 30) == []  # the other partition has said nothing yet
    await first.note_idle()
    assert await shown() == []  # nobody has looked for long enough
    await first.note_idle()
    assert await shown() == [2]
    assert await shown(50) == [2, 1]
    await first.stop()
    await second.stop()


def test_the_partition_of_a_key_is_that_of_kafka_s_partitioner():
    names = ["a", "konto-1", "Zürich", "", "a"]
    assert partitions_of(pa.table({"k": names}), ["k"], 7).tolist() == [
        partition_of(name.encode(), 7) for name in names
    ]
    assert partitions_of(pa.table({"k": [12, -5]}), ["k"], 7).tolist() == [
        partition_of(key, 7) for key in (b"12", b"-5")
    ]
    assert partitions_of(pa.table({"k": names}), [], 7).tolist() == [0] * 5


@pytest.mark.parametrize(
    "column",
    [
        pa.array([0.0, -0.0]),
        pa.array([math.nan, -math.nan], pa.float32()),
        pa.array(["a", "a"]).dictionary_encode(),
        pa.array([1, 1], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1, 1], pa.time32("ms")),
        pa.array([1, 1], pa.date32()),
        pa.array([True, True]),
        pa.array([b"\xff", b"\xff"]),
        pa.array([b"\xff", b"\xff"], pa.binary(1)),
        pa.array(["a", "a"], pa.string_view()),
        pa.array([1, 1], pa.duration("s")),
        pa.array(["1.50", "1.50"]).cast(pa.decimal128(9, 2)),
        pa.array([None, None], pa.string()),
        pa.array([None, None], pa.null()),
    ],
    ids=lambda column: str(column.type),
)
def test_what_is_one_key_to_sql_is_in_one_partition(column):
    rows = pa.table({"k": column, "l": ["x", "x"]})
    for by in (["k"], ["k", "l"]):
        assert len(set(partitions_of(rows, by, 101).tolist())) == 1


def test_time_is_the_least_of_all_sources_that_are_waited_for():
    fronts = Fronts(3)
    for source in range(3):
        assert fronts.is_new(Mark(0, 5, source=source, latest_us=10 * (source + 1)))
    assert fronts.reached_us == 10
    assert not fronts.is_new(Mark(2, 5, source=0, latest_us=99))  # it came before
    assert fronts.reached_us == 10
    fronts.is_new(Mark(5, 5, source=0, is_idle=True))
    assert fronts.reached_us == 20
    fronts.is_new(Mark(4, 4, source=1, is_idle=True))  # of one that was taken for dead
    assert fronts.reached_us == 20
    fronts.is_new(Mark(5, 6, source=0))  # no rows, so it is still idle
    fronts = Fronts(3, fronts.state())
    fronts.is_new(Mark(5, 6, source=1, latest_us=90))
    assert fronts.reached_us == 30
    fronts.is_new(Mark(6, 7, source=0, latest_us=40))
    fronts.is_new(Mark(5, 6, source=2, latest_us=80))
    assert fronts.reached_us == 40
    with pytest.raises(Halt, match="3 to 8 of partition 1 follows one up to 6"):
        fronts.is_new(Mark(3, 8, source=1))


def test_while_a_run_is_fed_nobody_is_idle_and_it_ends_with_the_last_source():
    fronts = Fronts(2)
    fronts.is_new(Mark(0, 0, source=1, is_idle=True))
    fronts.is_new(Mark(0, 1, 7, source=0, latest_us=50))
    assert (fronts.reached_us, fronts.end()) == (BEFORE_ALL_US, False)
    fronts.is_new(Mark(0, 1, 7, source=1, latest_us=20))
    assert fronts.reached_us == 20
    fronts.is_new(Mark(1, 2, 7, source=1, end=True))
    assert (fronts.reached_us, fronts.end()) == (50, False)
    fronts.is_new(Mark(1, 2, 7, source=0, end=True))
    assert (fronts.end(), fronts.end()) == (True, False)
    assert fronts.reached_us == BEFORE_ALL_US
    for source in (0, 1):  # records without rows follow, of sources whose own were sent twice
        fronts.is_new(Mark(2, 3, 7, source=source))
        fronts.is_new(Mark(3, 4, 8, source=source, end=True))
        fronts.is_new(Mark(4, 5, 8, source=source))
    assert (fronts.end(), fronts.end()) == (True, False)
