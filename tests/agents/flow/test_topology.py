"""Which stages share a process, which topics lie between, and what cannot run on a topic."""

import re

import pytest
import yaml
from flow_bench import Bench, graph

from streamapp.agents.flow import sending
from streamapp.agents.flow.topology import check_endless, topology
from streamapp.core.errors import Refuse
from streamapp.services import call
from streamapp.workflow.graph.load import graph_of, load_graph
from streamapp.workflow.run.binding import bind

WINDOW = {"kind": "tumbling", "size": "10s", "time": "ts", "columns": {"k": "count(*)"}}


def stage(name, after=None, operation="words", **more):
    depends = {"depends_on": [after]} if after else {}
    service, operation = ("demo", operation) if isinstance(operation, str) else operation
    return {"name": name, "service": service, "operation": operation, **depends, **more}


def out(source):
    return {"source": source, "format": "json"}


def test_stages_share_a_group_until_one_has_its_own(tmp_path):
    filter_ = ("pipeline", "filter")
    where = {"config": {"where": "n > 0"}}
    found = topology(bind(graph(
        tmp_path,
        [
            stage("a"), stage("b", "a", filter_, **where),
            stage("c", "b", filter_, scale="own", **where), stage("d", "c", filter_, **where),
            stage("unused", "a", filter_, scale="own", **where),
        ],
        {"first": out("a"), "last": out("d"), "raw": out("rows")},
    )))  # fmt: skip
    groups = {group.name: group for group in found.groups}
    assert {name: group.steps for name, group in groups.items()} == {
        "after-rows": ("a", "b"), "c": ("c",), "after-c": ("d",),
    }  # fmt: skip
    assert groups["after-rows"].publishes == {"t.a": "a", "t.b": "b", "t.first": "a"}
    assert (groups["c"].topic, groups["c"].publishes) == ("t.b", {"t.c": "c"})
    assert found.outputs == {"first": "t.first", "last": "t.last", "raw": "t.rows"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"operation": "lookup"}, "looks at all rows at once"),
        ({"when": "params.x > 1 and rows.rows > 3"}, "has a when that counts rows"),
    ],
)
def test_a_stage_of_all_rows_is_refused_with_its_place_where_they_have_no_end(tmp_path, more, said):
    (tmp_path / "rows.jsonl").write_text('{"n": 1, "text": "a"}\n')
    (tmp_path / "streamapp.toml").write_text('[sources.names]\npath = "rows.jsonl"\n')
    document = {
        "name": "t",
        "params": {"x": 2},
        "inputs": {"rows": {"type": "file", "path": "rows.jsonl"}},
        "stages": [{**stage("a"), **more}],
        "outputs": {"o": out("a")},
    }
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    binding = bind(load_graph(path))
    assert [group.is_whole for group in topology(binding).groups] == [True]
    with pytest.raises(Refuse, match=rf"flow.yaml:\d+:\d+: stage 'a' .*{said}"):
        check_endless(binding)


def test_a_stage_of_all_rows_has_a_group_of_its_own_and_is_as_an_input_behind(tmp_path):
    where = {"config": {"where": "n > 0"}}
    stages = [
        stage("a", None, ("pipeline", "filter"), **where),
        stage("b", "a", ("pipeline", "aggregate"), config={"columns": {"n": "sum(n)"}}),
        stage("c", "b", ("pipeline", "filter"), **where),
        stage("d", "c", ("pipeline", "filter"), **where),
        {**stage("e", "a", ("pipeline", "join"), config={"on": ["n"]}), "depends_on": ["a", "d"]},
    ]
    binding = bind(graph(tmp_path, stages, {"o": out("e"), "p": out("b")}))
    for partitions in (1, 3):
        found = topology(binding, partitions).groups
        assert [
            (group.name, group.steps, dict(group.takes), group.is_whole) for group in found
        ] == [
            ("after-rows", ("a",), {"rows": "t.rows"}, False),
            ("b", ("b",), {"a": "t.a"}, True),
            ("after-b", ("c", "d"), {"b": "t.b"}, False),
            ("e", ("e",), {"a": "t.a", "d": "t.d"}, True),
        ]
        assert set(found[1].publishes) == {"t.b", "t.p"}
        assert [group.is_ordered for group in found] == [
            partitions > 1 and n in {0, 2} for n in range(4)
        ]


def test_a_stage_that_takes_nothing_is_refused(tmp_path):
    document = {
        "name": "t",
        "stages": [stage("a", None, ("pipeline", "aggregate"), config={"columns": {"n": "1"}})],
        "outputs": {"o": out("a")},
    }
    binding = bind(graph(tmp_path, [stage("a")], {"o": out("a")}))
    binding.graph = graph_of({**document, "inputs": {}}, tmp_path)
    with pytest.raises(Refuse, match="stage 'a' takes no rows") as refused:
        topology(binding)
    assert refused.value.code == "flow.stage"


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (stage("b", "a", "pairs"), "is demo.pairs, which looks at all rows of a topic"),
        (
            stage("b", "a", ("pipeline", "window"), config={**WINDOW, "by": ["text", "ns"]}),
            "has a key of 'ns', which is list",
        ),
        (
            stage(
                "b", "a", ("pipeline", "window"),
                config={**WINDOW, "time": "${key}"}, foreach={"key": ["ts", "later"]},
            ),
            "has calls of several keys or times",
        ),
    ],
)  # fmt: skip
def test_a_window_that_cannot_be_parted_is_refused_on_several_partitions(tmp_path, window, said):
    columns = {"ts": "make_timestamp(n)", "ns": "[n]", "later": "make_timestamp(n)"}
    first = stage("a", None, ("pipeline", "map"), config={"columns": columns})
    binding = bind(graph(tmp_path, [first, window], {"o": out("b")}))
    assert len(topology(binding).groups) == 1
    with pytest.raises(Refuse, match=re.escape(said)) as refused:
        topology(binding, 2)
    assert refused.value.code == "flow.partitions"


def test_windows_on_several_partitions_have_a_group_and_a_topic_of_their_keys(tmp_path):
    columns = {"ts": "make_timestamp(n)"}
    stages = [
        stage("a", None, ("pipeline", "map"), config={"columns": columns}),
        stage("few", "a", ("pipeline", "window"), config={**WINDOW, "by": ["text"]}),
        stage("all", "a", ("pipeline", "window"), config=WINDOW),
        stage("more", "few", ("pipeline", "filter"), config={"where": "k > 0"}),
        stage("unused", "a", ("pipeline", "window"), config=WINDOW),
    ]
    binding = bind(graph(tmp_path, stages, {"o": out("more"), "p": out("all")}))
    found = {group.name: group for group in topology(binding, 3).groups}
    assert {name: (group.topic, group.steps) for name, group in found.items()} == {
        "after-rows": ("t.rows", ("a",)),
        "few": ("t.few.keyed", ("few", "more")),
        "all": ("t.all.keyed", ("all",)),
    }
    assert found["after-rows"].topics == ("t.a", "t.few.keyed", "t.all.keyed")
    assert [group.is_keyed for group in found.values()] == [False, True, True]
    assert [key.by for key in found["after-rows"].by_key["t.a"]] == [("text",), ()]


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_group_of_its_own_does_not_share_the_name_of_another(tmp_path, partitions):
    first = stage("a", None, ("pipeline", "map"), config={"columns": {"ts": "make_timestamp(n)"}})
    config = {**WINDOW, "by": ["text"]}
    own = stage("after-rows", "a", ("pipeline", "window"), config=config, scale="own")
    with pytest.raises(Refuse, match="'after-rows' has a group of its own") as refused:
        topology(bind(graph(tmp_path, [first, own], {"o": out("after-rows")})), partitions)
    assert refused.value.code == "flow.name"


def test_two_parts_do_not_share_a_topic(tmp_path):
    with pytest.raises(Refuse, match="would share the topic t.rows"):
        topology(bind(graph(tmp_path, [stage("a")], {"rows": out("a")})))


async def test_windows_of_event_time_on_topics_are_those_of_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK_ROWS", 2)
    config = {"kind": "tumbling", "size": "10s", "time": "moment", "columns": {"total": "sum(n)"}}
    rows = [{"n": n, "moment": f"2026-01-01T00:00:{n * 3 % 60:02}", "text": "x"} for n in range(19)]
    when = {"config": {"columns": {"moment": "CAST(moment AS TIMESTAMP)"}}}
    stages = [
        stage("timed", None, ("pipeline", "map"), **when),
        stage("sums", "timed", ("pipeline", "window"), config=config),
    ]
    bench = Bench(graph(tmp_path, stages, {"sums": out("sums")}, rows))
    await bench.feed()
    kills = ["no", "after", "before", "no", "after"]
    assert await bench.work("after-rows", [1, 1], kills) == 4
    timed = call("pipeline.map", rows, **when["config"])
    expected = call("pipeline.window", timed, **config).to_pylist()
    assert len(expected) == 6
    assert (await bench.rows("sums", tmp_path))[0] == expected
