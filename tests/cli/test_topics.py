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


def test_ls_shows_offsets(run, tmp_path):
    run("topics", "apply")
    append(f"local://{tmp_path}/home/log", "events.raw", [b"{}"] * 3)
    states = run("topics", "ls", "--json").json
    (raw,) = [s for s in states if (s["topic"], s["partition"]) == ("events.raw", 1)]
    assert (raw["begin"], raw["end"], raw["lag"]) == (0, 3, {})
    assert len(states) == sum(topic.partitions for topic in load())
    table = run("topics", "ls").out.splitlines()
    assert table[0].split() == ["topic", "partition", "begin", "end", "records", "lag"]
    assert ["events.raw", "1", "0", "3", "3"] in [line.split() for line in table]


def test_ls_does_not_make_the_log_it_looks_for(run, tmp_path):
    result = run("topics", "ls", "--broker", f"local://{tmp_path}/mistyped")
    assert result.code == 2
    assert f"there is no log at {tmp_path}/mistyped" in result.err
    assert not (tmp_path / "mistyped").exists()


def test_ls_shows_the_lag_of_groups_that_committed(run, tmp_path):
    run("topics", "apply")
    append(f"local://{tmp_path}/home/log", "events.raw", [b"{}"] * 5)
    commit(tmp_path / "home/log", "mine", {("events.raw", 1): 2})
    states = run("topics", "ls", "--group", "mine", "--json").json
    assert [state["lag"] for state in states if state["lag"]] == [{"mine": 3}]
    assert "mine 3" in run("topics", "ls", "--group", "mine").out


def commit(folder, group, offsets):
    from streamapp.transport.local.groups import Commits

    commits = Commits(folder)
    commits.put(group, offsets)
    commits.close()


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
