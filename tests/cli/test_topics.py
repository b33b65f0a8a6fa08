"""``streamapp topics`` on an embedded log."""

import asyncio

import pytest

from streamapp.topics.catalogue import load
from streamapp.transport import Outgoing, open_producer


def append(url, topic, values):
    async def work():
        producer = open_producer(url)
        await producer.start()
        await producer.send(topic, [Outgoing(value, partition=1) for value in values])
        await producer.stop()

    asyncio.run(work())


def test_apply_creates_what_is_declared_and_says_what_was_there(run):
    names = [topic.name for topic in load()]
    first = run("topics", "apply", "--json")
    assert first.json == dict.fromkeys(names, True)
    assert run("topics", "apply", "--json").json == dict.fromkeys(names, False)
    again = run("topics", "apply").out
    assert again.count("exists") == len(names)
    assert "events.raw  4 partitions" in again


def test_ls_shows_what_topics_hold(run, tmp_path):
    run("topics", "apply")
    append(f"local://{tmp_path}/home/log", "events.raw", [b"{}"] * 3)
    states = run("topics", "ls", "--json").json
    (raw,) = [state for state in states if state["topic"] == "events.raw"]
    assert raw["records"] == 3
    assert raw["bytes"] > 0
    assert raw["lag"] == {}
    assert raw["partitions"][1] == {"partition": 1, "begin": 0, "end": 3, "lag": {}}
    assert [len(state["partitions"]) for state in states] == [
        topic.partitions for topic in sorted(load(), key=lambda topic: topic.name)
    ]
    table = [line.split() for line in run("topics", "ls").out.splitlines()]
    assert table[0] == ["topic", "partitions", "records", "bytes", "lag"]
    assert ["events.raw", "4", "3", str(raw["bytes"])] in table
    table = [line.split() for line in run("topics", "ls", "--partitions").out.splitlines()]
    assert table[0] == ["topic", "partition", "begin", "end", "records", "lag"]
    assert ["events.raw", "1", "0", "3", "3"] in table


def test_ls_does_not_make_the_log_it_looks_for(run, tmp_path):
    result = run("topics", "ls", "--broker", f"local://{tmp_path}/mistyped")
    assert result.code == 2
    assert f"there is no log at {tmp_path}/mistyped" in result.err
    assert not (tmp_path / "mistyped").exists()


def test_ls_shows_the_lag_of_groups_that_committed(run, tmp_path):
    run("topics", "apply")
    append(f"local://{tmp_path}/home/log", "events.raw", [b"{}"] * 5)
    commit(tmp_path / "home/log", "mine", {("events.raw", 1): 2, ("events.raw", 0): 0})
    commit(tmp_path / "home/log", "other", {("events.raw", 1): 5})
    states = run("topics", "ls", "--json").json
    assert [state["lag"] for state in states if state["lag"]] == [{"mine": 3, "other": 0}]
    assert "mine 3  other 0" in run("topics", "ls").out
    only = run("topics", "ls", "--group", "mine", "--partitions")
    assert "mine 3" in only.out
    assert "other" not in only.out
    assert only.err == ""
    nobody = run("topics", "ls", "--group", "nobody", "--json")
    assert nobody.json[0]["lag"] == {}
    assert nobody.err == "group 'nobody' has committed nothing on this log\n"


def commit(folder, group, offsets):
    from streamapp.transport.local.groups import Groups

    groups = Groups(folder)
    groups.join(group, group)
    generation = groups.look(group, group, 60.0).generation
    groups.ready(group, group, generation, b"")
    groups.assign(group, generation, {group: b""})
    groups.take(group, group, generation)
    assert groups.commit(group, group, generation, offsets)
    groups.leave(group, group)
    groups.close()


def test_another_number_of_partitions_is_refused(run, clean):
    run("topics", "apply")
    folder = clean / "topics"
    folder.mkdir()
    for path in load().folder.glob("events.*.toml"):
        text = path.read_text().replace("partitions = 4", "partitions = 8")
        (folder / path.name).write_text(text)
    result = run("topics", "apply", "--topics-dir", folder)
    assert result.code == 2
    assert "events." in result.err
    assert "partitions" in result.err


def test_a_corrupt_declaration_is_named(run, clean):
    (clean / "topics").mkdir()
    (clean / "topics" / "a.toml").write_text('name = "a"\npartitions = \n')
    result = run("topics", "apply", "--topics-dir", "topics")
    assert result.code == 2
    assert "a.toml:2:" in result.err


@pytest.mark.parametrize("verb", ["ls", "apply"])
def test_an_unknown_broker_is_refused(run, verb):
    result = run("topics", verb, "--broker", "rabbit://x")
    assert result.code == 2
    assert "local://" in result.err
