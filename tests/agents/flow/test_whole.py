"""Stages that take all rows of a run, of one input or several, give on topics what they give in a
batch: the same rows in the same order, each once, whatever is killed meanwhile."""

import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path

import pytest
from flow_bench import Bench
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamapp.agents.flow import sending
from streamapp.agents.flow.record import decode
from streamapp.agents.flow.topology import check_endless
from streamapp.core.errors import Halt, Refuse
from streamapp.services import call
from streamapp.services.pipeline.groups import Aggregate
from streamapp.services.pipeline.join import Join
from streamapp.transport.clients import Outgoing, TopicSpec
from streamapp.workflow.graph.load import graph_of

KEPT = {"where": "n % 4 != 1"}
PEOPLE = [{"who": who, "age": age} for age, who in enumerate("abcd")]
TOTALS = {"by": ["who"], "columns": {"total": "sum(n)", "first": "min(n)", "all": "list(n)"}}
JOIN = {"on": ["who"], "how": "full"}
MERGE = {"mode": "full_outer_join", "key_fields": ["who"]}
SHARE = {"columns": {"share": "n + total"}}
COUNT = {"columns": {"rows": "count(*)", "first": "min(n)"}}


def stage(name, operation, config, after=(), inputs=(), **more):
    service, operation = operation.split(".")
    return {
        "name": name, "service": service, "operation": operation, "config": config,
        "depends_on": list(after), "inputs": list(inputs), **more,
    }  # fmt: skip


STAGES = [
    stage("kept", "pipeline.filter", KEPT, inputs=["rows"]),
    stage("totals", "pipeline.aggregate", TOTALS, ["kept"]),
    stage("aged", "pipeline.join", JOIN, ["kept"], ["people"]),
    stage("merged", "integrate.integrate", MERGE, ["totals"], ["people"]),
    stage("both", "pipeline.join", {"on": ["who"]}, ["kept", "totals"]),
    stage("shares", "pipeline.map", SHARE, ["both"]),
    stage("count", "pipeline.aggregate", COUNT, ["shares"]),
]
OUTPUTS = {name: {"source": name, "format": "json"} for name in (step["name"] for step in STAGES)}
GROUPS = ("after-rows", "totals", "aged", "merged", "both", "after-both", "count")


def graph(folder, stages, rows, people=PEOPLE, outputs=None):
    for name, found in (("rows", rows), ("people", people)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))
    document = {
        "name": "t",
        "inputs": {name: {"path": f"{name}.jsonl"} for name in ("rows", "people")},
        "stages": stages,
        "outputs": outputs or {s["name"]: {"source": s["name"], "format": "json"} for s in stages},
    }
    return graph_of(document, folder)


def some_rows(count):
    return [{"n": n, "who": "abcde"[n * n % 5]} for n in range(count)]


def expected(rows):
    kept = call("pipeline.filter", rows, **KEPT)
    totals = call("pipeline.aggregate", kept, **TOTALS)
    merged = {"totals": totals, "people": PEOPLE}
    both = call("pipeline.join", kept, totals, on=["who"])
    shares = call("pipeline.map", both, **SHARE)
    return {
        "kept": kept,
        "totals": totals,
        "aged": call("pipeline.join", kept, PEOPLE, **JOIN),
        "merged": call("integrate.integrate", inputs=merged, **MERGE),
        "both": both,
        "shares": shares,
        "count": call("pipeline.aggregate", shares, **COUNT),
    }


KILLS = st.lists(st.sampled_from(["no", "no", "before", "after"]), max_size=30)
CASES = {
    "count": st.integers(2, 40),
    "partitions": st.sampled_from([1, 3]),
    "kills": KILLS,
    "sizes": st.lists(st.integers(1, 4), max_size=12),
}


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(**CASES)
async def test_rows_and_their_order_are_those_of_the_batch_whatever_is_killed(
    monkeypatch, count, partitions, kills, sizes
):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    rows, kills, sizes = some_rows(count), list(kills), list(sizes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        bench = Bench(graph(path, STAGES, rows), partitions)
        assert tuple(group.name for group in bench.topology.groups) == GROUPS
        await bench.feed(kills[::2])
        for name in GROUPS:
            await bench.work(name, sizes, kills)
        for name, table in expected(rows).items():
            found, asides, _ = await bench.rows(name, path)
            assert (name, found) == (name, table.to_pylist())
            assert asides == []


ONE = [stage("count", "pipeline.aggregate", COUNT, inputs=["rows"])]


async def test_it_waits_until_every_source_has_ended(tmp_path):
    other = stage("other", "pipeline.filter", KEPT, inputs=["rows"], scale="own")
    joined = stage("joined", "pipeline.join", JOIN, ["kept", "other"])
    bench = Bench(graph(tmp_path, [STAGES[0], other, joined], some_rows(9)), 3)
    await bench.feed()
    await bench.work("after-rows")
    agents = [bench.agent("joined", []), bench.agent("joined", [])]
    waiting = asyncio.create_task(bench.run(agents[0], "joined"))
    while not list((tmp_path / "spool" / "joined").glob("*/other")):
        await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()  # as if it were killed
    waiting = asyncio.create_task(bench.run(agents[1], "joined"))
    await bench.work("other")
    await waiting
    kept = expected(some_rows(9))["kept"]
    wanted = call("pipeline.join", kept, kept, **JOIN).to_pylist()
    assert (await bench.rows("joined", tmp_path))[0] == wanted
    for agent in agents:
        await agent.stop()


async def test_a_second_run_has_its_own_rows_only(tmp_path):
    begin = {}
    path = tmp_path
    bench = Bench(graph(path, STAGES, some_rows(7)), 3)
    for run, count in ((1, 7), (2, 12)):
        bench.binding = Bench(graph(path, STAGES, some_rows(count)), 3).binding
        for text in (b'{"n": 1000, "who": "a"}', b"nonsense"):  # of others, so of no run
            bench.log.append("t.rows", [Outgoing(text, partition=1)])
        assert await bench.feed(collected=run - 1) == run
        for name in GROUPS:
            await bench.work(name)
        found, _, begin = await bench.rows("count", path, run, begin)
        assert found == expected(some_rows(count))["count"].to_pylist()


async def test_a_when_counts_the_rows_of_the_run_and_foreach_makes_several_calls(tmp_path):
    each = {"name": "many", "foreach": {"least": [1, 2]}, "when": "rows.rows >= 5 and least < 2"}
    many = {**stage("many", "demo.words", {"least": "${least}"}, inputs=["rows"]), **each}
    rows = [{"n": n, "text": "a b c"[: n + 1]} for n in range(5)]
    for found, count in ((rows, 5), (rows[:4], 0)):
        bench = Bench(graph(tmp_path, [many], found))
        assert [group.is_whole for group in bench.topology.groups] == [True]
        await bench.feed()
        await bench.work("many")
        made, _, _ = await bench.rows("many", tmp_path)
        assert [row["least"] for row in made] == [1] * count


async def test_rows_that_it_sets_aside_are_there_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    config = {"unique": ["who"]}
    stages = [stage("valid", "pipeline.validate", config, inputs=["rows"])]
    outputs = {name: {"source": "valid", "format": "json"} for name in ("one", "two")}
    bench = Bench(graph(tmp_path, stages, some_rows(9), outputs=outputs), 3)
    await bench.feed()
    await bench.work("valid", kills=["no", "after", "before", "no", "after", "no", "after"])
    bad = []
    good = call("pipeline.validate", some_rows(9), aside=bad, **config).to_pylist()
    found, asides, _ = await bench.rows("one", tmp_path)
    assert found == good
    set_aside = [(why, row) for _, why, rows in asides for row in rows]
    assert set_aside == [(why, row) for rows, why in bad for row in rows.to_pylist()]
    assert set_aside
    assert (await bench.rows("two", tmp_path))[0] == good


@pytest.mark.parametrize("on_failure", ["skip", "continue"])
async def test_a_failure_that_is_forgiven_sets_all_rows_aside(tmp_path, monkeypatch, on_failure):
    def fails(*_):
        raise Refuse("operation.rows", "no such pair")

    monkeypatch.setattr(Join, "run", fails)
    lost = stage("lost", "pipeline.join", JOIN, ["kept"], ["people"], on_failure=on_failure)
    bench = Bench(graph(tmp_path, [STAGES[0], lost], some_rows(3)))
    await bench.feed()
    for name in ("after-rows", "lost"):
        await bench.work(name)
    rows, asides, _ = await bench.rows("lost", tmp_path)
    assert rows == []
    kept = call("pipeline.filter", some_rows(3), **KEPT).to_pylist()
    assert asides == [
        ("lost", f"rows of {name}: operation.rows: no such pair", found)
        for name, found in (("kept", kept), ("people", PEOPLE))
    ]


async def test_one_that_makes_other_rows_the_second_time_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 1)
    monkeypatch.setattr(sending, "_RECORDS_AT_ONCE", 1)
    odd = stage("odd", "pipeline.aggregate", TOTALS, inputs=["rows"])
    bench = Bench(graph(tmp_path, [odd], some_rows(9)))
    await bench.feed()
    first = bench.agent("odd", ["no", "after"])
    with pytest.raises(asyncio.CancelledError):
        await bench.run(first, "odd")
    works = Aggregate.run
    monkeypatch.setattr(Aggregate, "run", lambda self, given: works(self, given).slice(1))
    agent = bench.agent("odd", [])
    await agent.start_positions([("t.rows", 0)])
    with pytest.raises(Halt, match="stage 'odd' was stopped .* makes other rows") as told:
        await agent._work(1, agent._standing.begin, lambda: True)
    assert told.value.code == "flow.repeat"
    for each in (first, agent):
        await each.stop()


async def test_a_result_is_sent_in_records_that_are_not_too_large(tmp_path):
    rows = [{"n": n, "who": f"{n:04}" * 100} for n in range(40)]
    config = {"by": ["who"], "columns": {"n": "min(n)"}}
    made = stage("made", "pipeline.aggregate", config, inputs=["rows"])
    bench = Bench(graph(tmp_path, [made], rows))
    await bench.feed()
    await bench.work("made", record_bytes_max=65_536 + 4_000)
    found = [decode(record) for record in bench.log.read("t.made", 0, 0).records]
    assert len(found) > 5
    assert [row["n"] for part in found for row in part.rows.to_pylist()] == list(range(40))
    bench = Bench(graph(tmp_path, [made], rows))
    await bench.feed()
    agent = bench.agent("made", [], record_bytes_max=65_536 + 100)
    await agent.start_positions([("t.rows", 0)])
    with pytest.raises(Refuse, match="rows 1 to 1 of its result have .* may have 100") as told:
        await agent._work(1, agent._standing.begin, lambda: True)
    assert told.value.code == "flow.too_large"
    await agent.stop()


async def test_windows_by_key_go_on_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    config = {"columns": {"at": "make_timestamp(total * 1000000)"}}
    window = {
        "kind": "tumbling", "size": "9s", "time": "at", "by": ["who"], "grace": "1h",
        "columns": {"rows": "count(*)"},
    }  # fmt: skip
    stages = [
        STAGES[0], STAGES[1], STAGES[4], stage("timed", "pipeline.map", config, ["both"]),
        stage("windows", "pipeline.window", window, ["timed"]),
        stage("sorted", "pipeline.aggregate", {**TOTALS, "columns": {"n": "sum(rows)"}}, ["windows"]),
    ]  # fmt: skip
    rows = some_rows(30)
    bench = Bench(graph(tmp_path, stages, rows), 3)
    await bench.feed()
    for name in ("after-rows", "totals", "both", "after-both", "windows", "sorted"):
        await bench.work(name)
    timed = call("pipeline.map", expected(rows)["both"], **config)
    windows = call("pipeline.window", timed, **window).to_pylist()
    for name, table in (("windows", windows), ("timed", timed.to_pylist())):
        found, _, _ = await bench.rows(name, tmp_path)
        assert sorted(found, key=str) == sorted(table, key=str)
    counts = {row["who"]: row["n"] for row in (await bench.rows("sorted", tmp_path))[0]}
    assert sum(counts.values()) == sum(row["rows"] for row in windows) == timed.num_rows


async def test_a_window_by_key_right_behind_it_has_a_group_that_parts_its_rows(tmp_path):
    first = {"by": ["who"], "columns": {"at": "make_timestamp(max(n) * 1000000)"}}
    window = {"kind": "tumbling", "size": "9s", "time": "at", "by": ["who"], "grace": "1h",
              "columns": {"rows": "count(*)"}}  # fmt: skip
    stages = [
        stage("timed", "pipeline.aggregate", first, inputs=["rows"]),
        stage("windows", "pipeline.window", window, ["timed"]),
    ]
    bench = Bench(graph(tmp_path, stages, some_rows(9)), 2)
    begin = {}
    for run in (1, 2):
        assert await bench.feed(collected=run - 1) == run
        for group in bench.topology.groups:
            await bench.work(group.name)
        found, _, begin = await bench.rows("windows", tmp_path, run, begin)
        timed = call("pipeline.aggregate", some_rows(9), **first)
        wanted = call("pipeline.window", timed, **window).to_pylist()
        assert sorted(found, key=str) == sorted(wanted, key=str)
    assert [group.name for group in bench.topology.groups] == ["timed", "after-timed", "windows"]


async def test_one_whose_partition_went_elsewhere_leaves_its_work(tmp_path, monkeypatch):
    bench = Bench(graph(tmp_path, ONE, some_rows(9)))
    await bench.feed()
    agent, generations, running = bench.agent("count", []), [1], threading.Event()
    agent._generation = lambda: generations[-1]

    def endless(operation, _):
        running.set()
        while True:
            operation.work.advance(0)
            time.sleep(0.001)

    monkeypatch.setattr(Aggregate, "run", endless)
    work = asyncio.create_task(bench.run(agent, "count"))
    await asyncio.to_thread(running.wait)
    generations.append(2)
    async with asyncio.timeout(60):
        await work
    assert bench.log.bounds("t.count", 0) == (0, 0)
    await agent.stop()


async def test_rows_that_the_topic_kept_no_longer_are_told(tmp_path):
    bench = Bench(graph(tmp_path, ONE, some_rows(9)))
    await bench.feed()
    agent = bench.agent("count", [])
    await agent.start_positions([("t.rows", 0)])
    bench.log.delete_records("t.rows", {0: 1})
    with pytest.raises(Halt, match=r"'t.rows' \[0\] lost rows: it begins at 1, and 0 is next"):
        await agent._work(1, agent._standing.begin, lambda: True)
    await agent.stop()


async def test_topics_that_were_made_anew_are_told(tmp_path):
    bench = Bench(graph(tmp_path, ONE, some_rows(9)))
    await bench.feed()
    await bench.work("count")
    agent = bench.agent("count", [])
    known = agent._reader.bounds

    async def bounds(topic, partition):
        return (0, 0) if topic == "t.rows" else await known(topic, partition)

    agent._reader.bounds = bounds
    with pytest.raises(Halt, match=r"'t.rows' \[0\] was made anew"):
        await agent._start_positions([("t.rows", 0)])
    await agent.stop()


def test_it_is_refused_where_rows_have_no_end(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, some_rows(3)))
    with pytest.raises(Refuse, match="'totals' is pipeline.aggregate, .* no end") as refused:
        check_endless(bench.binding)
    assert (refused.value.code, "--feed" in refused.value.fix) == ("flow.endless", True)
    check_endless(Bench(graph(tmp_path, STAGES[:1], some_rows(3))).binding)


async def test_one_that_waits_ends_when_its_process_is_to_stop(tmp_path):
    other = stage("other", "pipeline.filter", KEPT, inputs=["rows"], scale="own")
    joined = stage("joined", "pipeline.join", JOIN, ["kept", "other"])
    bench = Bench(graph(tmp_path, [STAGES[0], other, joined], some_rows(9)))
    await bench.feed()
    await bench.work("after-rows")
    agent = bench.agent("joined", [])
    waiting = asyncio.create_task(bench.run(agent, "joined"))
    while not list((tmp_path / "spool" / "joined").glob("*/other")):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await agent.stop()
        await waiting
    assert not list((tmp_path / "spool" / "joined").glob("*/"))


async def test_a_topic_of_the_workflow_as_it_was_before_is_told(tmp_path):
    before = Bench(graph(tmp_path, [{**STAGES[0], "name": "count"}], some_rows(9)))
    await before.feed()
    await before.work("after-rows")
    bench = Bench(graph(tmp_path, ONE, some_rows(9)))
    bench.log = before.log
    agent = bench.agent("count", [])
    with pytest.raises(Halt, match="the topic of stage 'count' has rows that were not") as told:
        await agent._start_positions([("t.rows", 0)])
    assert told.value.code == "flow.schema"
    await agent.stop()


async def test_runs_of_before_it_took_all_that_it_takes_now_are_passed(tmp_path):
    old = Bench(graph(tmp_path, STAGES[:2], some_rows(5)))
    for run in (1, 2):
        assert await old.feed(collected=run - 1) == run
        await old.work("after-rows")
    bench = Bench(graph(tmp_path, [STAGES[0], STAGES[2]], some_rows(5)))
    for topic in set(bench.topology.topics) - set(old.topology.topics):
        old.log.create(TopicSpec(topic, 1, 1 << 20))
    bench.log = old.log
    assert await bench.feed(collected=2) == 3  # one of its inputs was in none of them
    for name in ("after-rows", "aged"):
        await bench.work(name)
    found, _, _ = await bench.rows("aged", tmp_path, 3)
    assert found == expected(some_rows(5))["aged"].to_pylist()
