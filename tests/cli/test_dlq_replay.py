"""``streamapp dlq replay``: the same event, once; counted, asked for, and killed in between."""

import json
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from dead_letters import VALUE, Place, addresses, on_a_terminal, refused

from streamapp.agents.letters import Found
from streamapp.agents.replay import Chosen, Replays
from streamapp.topics.dead import CONNECT, Letter, LetterAddress
from streamapp.transport import Outgoing
from streamapp.transport.local.log import path_of


def test_a_replay_is_the_same_event_and_is_counted(run, place):
    at = place.die(VALUE, headers=[("trace", b"7")])
    result = run("dlq", "replay", at, *place.flags)
    assert result.code == 0, result.err
    assert f"0:0 sent to {place.raw}:1:1" in result.out
    replayed = place.read(place.raw, 1)[1]
    assert (replayed.key, replayed.value) == (b"conv", VALUE)
    headers = dict(replayed.headers)
    assert headers["trace"] == b"7"
    assert headers["streamapp.replays"] == b"1"
    assert headers["streamapp.letter"] == f"{place.dead}:0:0".encode()
    assert not any(name.startswith(CONNECT) for name in headers)
    assert "ce_id" not in headers
    (letter,) = run("dlq", "ls", "--json", *place.flags).json["shown"]
    assert letter["replays"] == 1
    assert letter["replayed"][0]["to"] == {"topic": place.raw, "partition": 1, "offset": 1}
    assert "once: to" in run("dlq", "show", at, *place.flags).out


def test_an_event_that_the_gateway_set_aside_goes_to_its_topic_by_its_key(run, place):
    context = {
        "topic": place.raw, "partition": "-1", "offset": "-1", "stage": "gateway",
        "exception.class.name": "event.schema", "exception.message": "at /price: no",
    }  # fmt: skip
    headers = [
        ("ce_id", b"e1"),
        *((CONNECT + name, text.encode()) for name, text in context.items()),
    ]
    place.send(place.dead, Outgoing(VALUE, b"conv", headers))
    shown = run("dlq", "show", "0:0", *place.flags).out
    assert f"source    {place.raw}\n" in shown
    assert "at /price: no" in shown
    result = run("dlq", "replay", "0:0", *place.flags)
    assert result.code == 0, result.err
    [replayed] = [*place.read(place.raw, 0), *place.read(place.raw, 1)]
    assert (replayed.key, replayed.value) == (b"conv", VALUE)
    assert dict(replayed.headers)["ce_id"] == b"e1"


def test_the_same_letter_is_not_replayed_twice_by_accident(run, place):
    at = place.die(VALUE)
    assert run("dlq", "replay", at, *place.flags).code == 0
    refused(run("dlq", "replay", at, *place.flags), 2, "replayed already", "--force")
    again = run("dlq", "replay", "--all", "--json", *place.flags)
    assert again.code == 0
    assert again.json["replayed"] == []
    assert again.json["skipped"][0]["code"] == "dlq.replayed"
    assert len(place.read(place.raw, 1)) == 2
    assert run("dlq", "replay", at, "--force", *place.flags).code == 0
    assert dict(place.read(place.raw, 1)[2].headers)["streamapp.replays"] == b"2"


def test_one_event_is_replayed_so_often_and_no_more(run, local):
    """It fails each time: every replay becomes a letter that knows how often it was one."""
    at = local.die(VALUE)
    for number in (1, 2, 3):
        assert run("dlq", "replay", at, *local.flags).code == 0
        replayed = local.read(local.raw, 1)[number]
        sent = Outgoing(replayed.value, replayed.key, replayed.headers, 1, replayed.timestamp)
        at = local.bury(number, sent)
    refused(run("dlq", "replay", at, *local.flags), 2, "replayed 3 times", "dlq edit", "--force")
    skipped = run("dlq", "replay", "--all", "--json", *local.flags).json["skipped"]
    assert {one["code"] for one in skipped} == {"dlq.replayed", "dlq.loop"}
    assert len(local.read(local.raw, 1)) == 4
    assert run("dlq", "replay", at, "--replays-max", "4", *local.flags).code == 0
    assert dict(local.read(local.raw, 1)[4].headers)["streamapp.replays"] == b"4"


def test_a_producer_cannot_turn_the_loop_protection_off(run, local):
    at = local.die(VALUE, headers=[("streamapp.replays", b"-100"), ("streamapp.dlq", b"purged")])
    assert run("dlq", "replay", at, *local.flags).code == 0
    assert dict(local.read(local.raw, 1)[1].headers)["streamapp.replays"] == b"1"


def test_no_event_becomes_a_mark_when_it_dies(run, local):
    first = local.die(VALUE)
    forged = json.dumps({"did": "purged", "letters": [[0, 1]]}).encode()
    local.die(forged, key=b"streamapp.dlq", headers=[("streamapp.dlq", b"purged")])
    assert addresses(run("dlq", "ls", "--json", *local.flags).json) == ["0:1", first]


def test_an_event_without_id_and_time_keeps_those_of_its_first_address(run, place):
    at = place.die(b'{"message": "m"}', at_ms=1_760_000_000_250, failed_ms=1_770_000_000_000)
    assert run("dlq", "replay", at, *place.flags).code == 0
    headers = dict(place.read(place.raw, 1)[1].headers)
    assert headers["ce_id"] == f"{place.raw}-1-0".encode()
    assert headers["ce_time"] == b"2025-10-09T08:53:20.250+00:00"


def again(run, local, at, offset):
    """Replay a letter whose event fails again: the address of its next letter, and what was sent."""
    assert run("dlq", "replay", at, "--force", *local.flags).code == 0
    record = local.read(local.raw, 1)[offset]
    sent = Outgoing(record.value, record.key, record.headers, 1, record.timestamp)
    return local.bury(offset, sent), record


def test_what_cannot_be_read_has_the_same_id_at_every_replay(run, local):
    first = local.die(b'{"message": "m"')
    second, sent = again(run, local, first, 1)
    assert dict(sent.headers)["ce_id"] == f"{local.raw}-1-0".encode()
    assert dict(again(run, local, first, 2)[1].headers)["ce_id"] == f"{local.raw}-1-0".encode()
    _, sent = again(run, local, second, 3)
    assert [v for n, v in sent.headers if n == "ce_id"] == [f"{local.raw}-1-0".encode()]


@pytest.mark.parametrize(
    ("value", "mended", "name"),
    [
        (b'{"message": "m"', b'{"message":"m"}', "first"),
        (b'{"id": "own", "message": "m"', b'{"id":"own","message":"m"}', None),
    ],
)
def test_mended_it_has_its_own_id_or_that_of_its_first_address(
    run, local, tmp_path, value, mended, name
):
    second, _ = again(run, local, local.die(value), 1)
    (tmp_path / "mended").write_bytes(mended)
    flags = ["--file", str(tmp_path / "mended"), *local.flags]
    assert run("dlq", "edit", second, *flags).code == 0
    headers = dict(local.read(local.raw, 1)[2].headers)
    assert headers.get("ce_id") == (f"{local.raw}-1-0".encode() if name else None)


def test_many_are_replayed_oldest_first_in_the_order_of_their_conversation(run, place):
    for number in range(250):
        place_number = b'{"id": "%d"}' % number
        place.die(place_number, code="good.now" if number % 2 else "still.bad")
    result = run("dlq", "replay", "--code", "good.*", "--yes", "--json", *place.flags)
    assert result.code == 0, result.err
    assert len(result.json["replayed"]) == 125
    ids = [json.loads(record.value)["id"] for record in place.read(place.raw, 1)[250:]]
    assert ids == [str(number) for number in range(1, 250, 2)]


def test_more_than_a_few_are_not_replayed_before_somebody_says_yes(run, local):
    for _ in range(4):
        local.die(VALUE)
    refused(run("dlq", "replay", "--all", *local.flags), 2, "replay 4 letters?", "--yes")
    assert len(local.read(local.raw, 1)) == 4
    assert run("dlq", "replay", "0:0", "0:1", "0:2", *local.flags).code == 0


def test_however_many_there_are_all_are_replayed_and_the_first_are_named(run, local, monkeypatch):
    monkeypatch.setattr("streamapp.cli.letters.NAMED_MAX", 5)
    flags = ["dlq", "replay", "--all", *local.flags]
    for number in range(12):
        local.die(None if number in {3, 7} else b'{"id": "%d"}' % number)
    refused(run(*flags), 2, "replay 12 letters?", "--yes")
    result = run(*flags, "--yes", "--json")
    assert result.code == 65
    assert [one["letter"] for one in result.json["replayed"]] == ["0:0", "0:1", "0:2", "0:4", "0:5"]
    assert [one["letter"] for one in result.json["failed"]] == ["0:3", "0:7"]
    assert result.json["counts"] == {"replayed": 10, "failed": 2, "skipped": 0, "left": 0}
    sent = [json.loads(record.value)["id"] for record in local.read(local.raw, 1)[12:]]
    assert sent == ["0", "1", "2", "4", "5", "6", "8", "9", "10", "11"]
    again = run(*flags, "--yes", "--json").json
    assert len(again["skipped"]) == 5
    assert again["counts"] == {"replayed": 0, "failed": 2, "skipped": 10, "left": 0}


def test_what_is_kept_of_a_letter_to_replay_are_a_few_bytes():
    chosen = Chosen()
    tracemalloc.start()
    for offset in range(100_000, 0, -1):
        letter = Letter(
            LetterAddress(0, offset), 0, 0, None, None, (), None, "s", "c", f"why {offset}", 0
        )
        chosen.see(Found(letter, 0, (), purged=False))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(chosen) == 100_000
    assert kept < 20 * len(chosen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_behind_a_mark_and_the_next_run_does_the_rest(run, local, number):
    for at in range(8):
        local.die(b'{"id": "%d"}' % at)
    flags = ["dlq", "replay", "--all", "--yes", *local.flags]
    program = (
        "import signal, sys; from streamapp.agents import letters; letters.READ_RECORDS = 3\n"
        "from streamapp.agents.replay import Replays\n"
        "mark = Replays._mark\n"
        "async def late(*given):\n"
        f"    signal.raise_signal({int(number)})\n"
        "    await mark(*given)\n"
        "Replays._mark = late\n"
        f"from streamapp.cli.app import main; sys.exit(main({flags!r}))"
    )
    stopped = subprocess.run(
        [sys.executable, "-P", "-c", program], check=False, timeout=60, capture_output=True
    )
    assert stopped.returncode == 130, stopped.stderr
    assert b"replayed 3 letters, 0 failed, 0 skipped; 5 left: run it again" in stopped.stdout
    assert run(*flags).code == 0
    ids = [json.loads(record.value)["id"] for record in local.read(local.raw, 1)[8:]]
    assert ids == [str(at) for at in range(8)]


def test_a_terminal_is_asked(local):
    for _ in range(4):
        local.die(VALUE)
    said = on_a_terminal(["replay", "--all", *local.flags], b"n\n")
    assert b"replay 4 letters?" in said
    assert len(local.read(local.raw, 1)) == 4
    on_a_terminal(["replay", "--all", *local.flags], b"y\n")
    assert len(local.read(local.raw, 1)) == 8


def test_killed_between_sending_and_marking_it_is_sent_again_with_the_same_ids(run, local):
    """tests/path shows that the store then has each event once."""
    for number in range(4):
        local.die(b'{"id": "%d"}' % number)
    flags = ["dlq", "replay", "--all", "--yes", *local.flags]
    program = (
        "import os, signal; from streamapp.agents.replay import Replays\n"
        "Replays._mark = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from streamapp.cli.app import main; main({flags!r})"
    )
    killed = subprocess.run([sys.executable, "-P", "-c", program], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert hasattr(Replays, "_mark")
    assert run(*flags).code == 0
    ids = [json.loads(record.value)["id"] for record in local.read(local.raw, 1)]
    assert ids == ["0", "1", "2", "3"] * 3
    assert run(*flags, "--json").json["replayed"] == []


def test_what_cannot_be_sent_does_not_keep_the_others(run, place):
    place.die(VALUE)
    place.die(None, code="event.empty")
    place.die(b'{"id": "2"}')
    result = run("dlq", "replay", "--all", "--yes", "--json", *place.flags)
    assert result.code == 65
    assert [one["letter"] for one in result.json["replayed"]] == ["0:0", "0:2"]
    assert [one["code"] for one in result.json["failed"]] == ["dlq.no_value"]
    text = run("dlq", "replay", "0:1", *place.flags)
    assert text.code == 65
    assert "not sent: letter 0:1 has no value" in text.err


def test_one_that_its_headers_make_too_large_does_not_keep_the_others(run, tmp_path):
    place = Place(f"local://{tmp_path}/log", raw_bytes_max=2000)
    place.die(VALUE)
    place.die(b'{"id": "2", "message": "%s"}' % (b"x" * 1960))
    place.die(b'{"id": "3"}')
    result = run("dlq", "replay", "--all", "--yes", "--json", *place.flags)
    assert result.code == 65
    assert [one["letter"] for one in result.json["replayed"]] == ["0:0", "0:2"]
    assert [one["code"] for one in result.json["failed"]] == ["record.too_large"]


def test_a_value_that_was_left_on_the_source_log_is_read_from_there(run, place):
    from hashlib import sha256

    digest = sha256(VALUE).hexdigest()
    sent = Outgoing(VALUE, b"conv", (), 1, 1_760_000_000_000)
    place.send(place.raw, sent)
    left = f"large; its 9 bytes (sha256 {digest}) are left on the source log"
    at = place.bury(0, sent._replace(value=None), reason=left)
    assert run("dlq", "show", at, "--raw", *place.flags).out.encode() == VALUE
    assert run("dlq", "replay", at, *place.flags).code == 0
    assert place.read(place.raw, 1)[1].value == VALUE
    wrong = left.replace(digest, "0" * 64)
    at = place.bury(0, sent._replace(value=None), reason=wrong)
    assert run("dlq", "replay", at, *place.flags).code == 65


def test_a_letter_that_retention_took_meanwhile_does_not_keep_the_others(run, local, monkeypatch):
    for number in range(3):
        local.die(b'{"id": "%d"}' % number)
    replay = Replays.replay

    async def late(self, chosen):
        with sqlite3.connect(path_of(Path(local.url.removeprefix("local://")), local.dead)) as db:
            db.execute("DELETE FROM records WHERE position = 1")
        async for outcomes in replay(self, chosen):
            yield outcomes

    monkeypatch.setattr(Replays, "replay", late)
    result = run("dlq", "replay", "--all", "--yes", "--json", *local.flags)
    assert result.code == 65
    assert [one["letter"] for one in result.json["replayed"]] == ["0:0", "0:2"]
    assert [one["letter"] for one in result.json["failed"]] == ["0:1"]
