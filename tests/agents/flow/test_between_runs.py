"""What a stage of all rows, the feed and the collecting do when files change between two runs."""

import json

import pytest
from flow_bench import Bench, graph

from streamapp.agents.flow import sending
from streamapp.agents.flow.record import decode
from streamapp.core.errors import Halt, Refuse
from streamapp.transport.clients import Outgoing
from streamapp.workflow.data import open_input

STAGES = [
    {
        "name": "count",
        "service": "pipeline",
        "operation": "aggregate",
        "config": {"columns": {"rows": "count(*)"}},
    }
]
OUTPUTS = {"count": {"source": "count", "format": "json"}}
ROWS = [{"n": n, "who": "abc"[n]} for n in range(3)]


async def test_rows_of_the_workflow_as_it_was_before_are_told_by_their_topic(tmp_path):
    old = Bench(graph(tmp_path, STAGES, OUTPUTS, ROWS))
    assert await old.feed() == 1
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, [{**row, "more": 1} for row in ROWS]))
    bench.log = old.log
    agent = bench.agent("count", [])
    await agent.start_positions([("t.rows", 0)])
    with pytest.raises(
        Halt,
        match="topic 't.rows' has rows of n int64, who string, not n int64, who string, more int64",
    ) as told:
        await agent._work(1, agent._standing.begin, lambda: True)
    assert told.value.code == "flow.schema"
    await agent.stop()


async def test_an_input_that_changed_after_it_was_fed_is_told_where_the_run_goes_on(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, ROWS))
    assert await bench.feed() == 1
    assert await bench.feed() == 1
    (tmp_path / "rows.jsonl").write_text(json.dumps({"n": 9, "who": "a"}) + "\n")
    with pytest.raises(Refuse, match="input 'rows' is not what it was when this run began"):
        await bench.feed()
    assert await bench.feed(collected=1) == 2


async def test_a_topic_made_anew_is_read_from_its_beginning(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, ROWS))
    begin = {"t.count": [100]}  # where a run ended before the topic was deleted
    assert await bench.feed() == 1
    await bench.work("count")
    rows, _, ended = await bench.rows("count", tmp_path, 1, begin)
    assert [row["rows"] for row in rows] == [3]
    assert ended == {"t.count": [2]}
    rows, _, _ = await bench.rows("count", tmp_path, 1, {"t.count": [1]})
    assert [row["rows"] for row in rows] == [3]


async def test_bad_rows_of_an_input_are_known_again_where_the_run_goes_on(tmp_path):
    flow = graph(tmp_path, STAGES, OUTPUTS, ROWS)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("nonsense\n")
    bench, bad = Bench(flow), []
    bench.binding.inputs["rows"] = open_input(
        flow.inputs["rows"], tmp_path, name="rows", on_bad=bad.append
    )
    for times in (1, 2):
        assert await bench.feed() == 1
        assert [row.text for row in bad] == ["nonsense"] * times


async def test_rows_that_one_taken_for_dead_wrote_late_are_left_out_after_a_restart_too(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 1)
    kept = {**STAGES[0], "name": "kept", "operation": "filter", "config": {"where": "n >= 0"}}
    outputs = {"kept": {"source": "kept", "format": "json"}}
    bench = Bench(graph(tmp_path, [kept], outputs, ROWS))
    await bench.feed()
    late = bench.log.read("t.rows", 0, 0).records[:2]
    again = [Outgoing(each.value, headers=each.headers, partition=0) for each in late]
    bench.log.append("t.rows", again)
    await bench.work("after-rows", [5], most=1)  # killed between the two
    await bench.work("after-rows")
    made = bench.log.read("t.kept", 0, 0).records
    assert [row["n"] for each in made for row in decode(each).rows.to_pylist()] == [0, 1, 2]


@pytest.mark.parametrize("operation", ["filter", "aggregate"])
async def test_a_source_made_anew_with_as_many_records_is_told(tmp_path, operation):
    config = {"where": "n >= 0"} if operation == "filter" else STAGES[0]["config"]
    stages = [{**STAGES[0], "operation": operation, "config": config}]
    old = Bench(graph(tmp_path, stages, OUTPUTS, ROWS))
    await old.feed()
    (group,) = old.topology.groups
    await old.work(group.name)
    bench = Bench(old.binding.graph)
    for each in old.log.read("t.count", 0, 0).records:
        bench.log.append("t.count", [Outgoing(each.value, headers=each.headers, partition=0)])
    assert await bench.feed(collected=1) == 2
    assert bench.log.bounds("t.rows", 0) == old.log.bounds("t.rows", 0)
    agent = bench.agent(group.name, [])
    with pytest.raises(Halt, match=r"'t.rows' \[0\] was made anew") as told:
        await agent._start_positions([("t.rows", 0)])
    assert told.value.code == "flow.source"
    await agent.stop()
