"""What no receiver takes becomes a dead letter: listed, and posted once more when told to."""

import asyncio
import json

import pytest
from exporting import SECRET, export_of

from streamapp.agents.exports.dead import undelivered
from streamapp.cli import main
from streamapp.topics.catalogue import UNDELIVERED
from streamapp.topics.dead import LetterAddress, read


@pytest.fixture
def run(tmp_path, log_url, receiver, monkeypatch, capfd):
    """A verb of `streamapp export` in a project: exit code and what it printed."""
    (tmp_path / "streamapp.toml").write_text(
        f'home = "home"\nbroker = "{log_url}"\n[exports.default]\n'
        f'webhook_url = "{receiver.url}"\nsecrets = ["env:HOOK_SECRET"]\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOOK_SECRET", SECRET)

    async def call(*arguments):
        capfd.readouterr()
        code = await asyncio.to_thread(main, ["export", *arguments])
        return code, "".join(capfd.readouterr())

    return call


async def dead(log, count):
    async with asyncio.timeout(30):
        while len(found := await undelivered(log.reader)) != count:
            await asyncio.sleep(0.01)
    return found


async def test_they_are_listed_and_replayed_under_their_own_ids(
    source, receiver, exporting, log, run
):
    receiver.answers += [400] * 2
    await exporting(export_of(receiver, attempts_max=2, batch_size=100))
    sent = await source.send("a", "b")
    [letter] = await dead(log, 1)
    [identity] = receiver.attempts
    assert (letter.id, letter.export, letter.code) == (identity, "default", "export.refused")
    assert "2 attempts, the last one: 400" in letter.reason
    sent += await source.send("c")  # it goes on behind them
    await receiver.until(lambda: receiver.ids() == ["e0-2"])
    code, listed = await run("dead", "--json")
    assert (code, [one["id"] for one in json.loads(listed)]) == (0, [identity])
    receiver.answers.append(500)
    code, said = await run("replay", "default")
    assert (code, "0 delivered, 1 not" in said) == (65, True)
    assert await run("replay") == (0, "1 delivered, 0 not\n")
    assert receiver.deliveries[-1][0] == identity
    assert sorted(receiver.ids()) == sent
    assert await run("dead", "--json") == (0, "[]\n")


async def test_a_row_whose_condition_cannot_be_told_costs_only_itself(
    source, receiver, exporting, log
):
    await exporting(export_of(receiver, where="CAST(text AS INTEGER) > 1"))
    await source.send("1", "2", "many", "3")
    await receiver.until(lambda: receiver.ids() == ["e0-1", "e0-3"])
    [letter] = await dead(log, 1)
    assert letter.code == "export.where"
    [record] = (await log.reader.read(UNDELIVERED, 0, letter.offset)).records
    assert [e["id"] for e in json.loads(record.value)["data"]["events"]] == ["e0-2"]


async def test_a_letter_names_no_source_so_that_dlq_replay_leaves_it_alone(
    source, receiver, exporting, log
):
    receiver.answers.append(400)
    await exporting(export_of(receiver, attempts_max=1))
    await source.send("a")
    [letter] = await dead(log, 1)
    [record] = (await log.reader.read(UNDELIVERED, 0, letter.offset)).records
    found = read(0, record)
    assert (found.address, found.is_foreign) == (LetterAddress(0, letter.offset), True)


async def test_ls_says_how_far_each_is_and_checks_its_condition(source, receiver, run, tmp_path):
    await source.send("a")
    code, listed = await run("ls", "--json")
    assert code == 0
    assert [(one["name"], one["behind"], one["dead"]) for one in json.loads(listed)] == [
        ("default", None, 0)
    ]
    toml = (tmp_path / "streamapp.toml").read_text()
    (tmp_path / "streamapp.toml").write_text(toml + 'where = "nope = 1"\n')
    code, said = await run("ls")
    assert (code, "nope" in said) == (2, True)


async def test_a_project_without_exports_is_told_how_to_declare_one(run, tmp_path):
    (tmp_path / "streamapp.toml").write_text("")
    code, said = await run("replay")
    assert (code, "[exports.NAME]" in said) == (2, True)


async def test_a_name_that_no_export_has_is_told_which_there_are(log, run):
    for verb in ("dead", "replay"):
        code, said = await run(verb, "crn")
        assert (code, "no export is called 'crn'" in said, "declared: default" in said) == (
            2, True, True,
        )  # fmt: skip
