"""``streamapp dlq`` on both logs: what it lists, shows and purges, and what it refuses."""

import asyncio
import threading
from pathlib import Path

import pytest
from dead_letters import VALUE, Place, addresses, on_a_terminal, refused

from streamapp.agents.purge import Purge
from streamapp.topics.dead import CONNECT
from streamapp.transport import Outgoing
from streamapp.transport.local.clients import LocalReader
from streamapp.transport.local.log import path_of

# ---- ls and show ----


def test_ls_counts_and_lists_newest_first(run, place):
    for number in range(5):
        code = "picky.bad" if number < 3 else "event.json"
        place.die(b"{}", code=code, stage=code.partition(".")[0], at_ms=1_760_000_000_000 + number)
    listing = run("dlq", "ls", "--json", *place.flags).json
    assert addresses(listing) == ["0:4", "0:3", "0:2", "0:1", "0:0"]
    assert listing["counts"] == [
        {"stage": "picky", "code": "picky.bad", "letters": 3},
        {"stage": "event", "code": "event.json", "letters": 2},
    ]
    assert listing["shown"][0]["source"] == {"topic": place.raw, "partition": 1, "offset": 4}
    lines = run("dlq", "ls", "--limit", "2", *place.flags).out.splitlines()
    assert lines[0].split() == ["stage", "code", "letters"]
    assert lines[1].split() == ["picky", "picky.bad", "3"]
    assert lines[5].startswith("0:4")
    assert f"{place.raw}:1:4" in lines[5]
    assert lines[-1] == "the newest 2 of 5 letters (--limit N for more)"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--stage", "wire"], ["0:2"]),
        (["--code", "event.*"], ["0:2", "0:1"]),
        (["--code", "event"], []),
        (["--topic", "nobody's"], []),
        (["--since", "2026-01-01"], ["0:2", "0:1"]),
        (["--before", "2026-01-01"], ["0:0"]),
        (["--since", "2026-01-01", "--before", "2026-02-01T00:00:00Z"], ["0:1"]),
        (["--since", "1m"], []),
    ],
)
def test_ls_filters(run, local, flags, expected):
    local.die(b"{}", at_ms=1_760_000_000_000)
    local.die(b"{}", at_ms=1_768_000_000_000, code="event.time")
    local.die(b"{}", at_ms=1_771_000_000_000, code="event.json", stage="wire")
    listing = run("dlq", "ls", "--json", *flags, *local.flags).json
    assert addresses(listing) == expected
    assert listing["letters"] == len(expected)


def test_when_it_failed_counts_not_when_it_came(run, local):
    local.die(b"{}", at_ms=1_760_000_000_000, failed_ms=1_770_000_000_000)
    local.die(b"{}", at_ms=1_765_000_000_000)
    assert addresses(run("dlq", "ls", "--json", "--since", "2026-01-01", *local.flags).json) == [
        "0:0"
    ]
    text = run("dlq", "show", "0:0", *local.flags).out
    assert "came      2025-10-09 08:53:20" in text
    assert "failed    2026-02-02 02:40:00" in text


def test_a_terminal_gets_a_line_for_each_letter(local):
    for _ in range(3):
        local.die(b"{}", reason="it is bad, " * 30)
    lines = on_a_terminal(["ls", *local.flags], b"", COLUMNS="90", NO_COLOR="1").splitlines()
    letters = [line for line in lines if b"2025-10-09 08:53:20" in line]
    assert len(letters) == 3
    assert all("it is bad" in line.decode() and "…" in line.decode() for line in letters)
    wide = on_a_terminal(["ls", *local.flags], b"", COLUMNS="160", NO_COLOR="1").decode()
    assert f"{local.raw}:1:2" in wide


def test_several_partitions_are_one_list(run, tmp_path):
    place = Place(f"local://{tmp_path}/log", dead_partitions=3)
    for number in (4, 1, 3, 0, 2):
        place.die(b"{}", in_=number % 3, at_ms=1_760_000_000_000 + number * 1000)
    shown = run("dlq", "ls", "--json", *place.flags).json["shown"]
    times = [letter["timestamp_ms"] % 1_000_000 for letter in shown]
    assert sorted(times) == [0, 1000, 2000, 3000, 4000]
    assert {letter["address"] for letter in shown} == {"0:0", "0:1", "1:0", "1:1", "2:0"}


def test_a_topic_longer_than_a_window_is_read_to_its_end(run, local):
    sent = Outgoing(b"{}", b"k", (), 1, 1_760_000_000_000)
    local.bury(0, sent)
    (found,) = local.read(local.dead)
    more = Outgoing(found.value, found.key, found.headers, 0, found.timestamp)
    local.send(local.dead, *[more] * 9000)
    listing = run("dlq", "ls", "--json", "--limit", "2", *local.flags).json
    assert listing["letters"] == 9001
    assert addresses(listing) == ["0:9000", "0:8999"]
    result = run("dlq", "purge", "0:0", "0:4904", "0:4905", "--yes", "--json", *local.flags)
    assert (result.json["erased"], result.json["behind"]) == (1, 2)
    assert run("dlq", "ls", "--json", *local.flags).json["letters"] == 8998
    refused(run("dlq", "show", "0:4905", *local.flags), 2, "was purged")
    refused(run("dlq", "show", "0:0", *local.flags), 2, "no dead letter at 0:0")


def test_show_tells_everything(run, place):
    at = place.die(VALUE, headers=[("trace", b"\x00\xff"), ("lang", b"en")])
    text = run("dlq", "show", at, *place.flags).out
    for part in (
        "picky.bad", "it is bad", f"{place.raw}:1:0", "2025-10-09 08:53:20", "never",
        "conv", "trace: 00 ff", "lang: en", '  "price": 1.50,', f"{len(VALUE)} bytes",
    ):  # fmt: skip
        assert part in text
    assert run("dlq", "show", at, "--raw", *place.flags).out.encode() == VALUE
    told = run("dlq", "show", at, "--json", *place.flags).json
    assert told["value"].encode() == VALUE
    assert told["headers"][0] == {"name": "trace", "value": None, "value_base64": "AP8="}
    assert told["key"] == "conv"


def test_show_writes_bytes_in_hex_and_disarms_text(run, local):
    at = local.die(b"\x00\x01garbage!" + bytes(20_000), reason="\x1b]0;title\x07 bad")
    text = run("dlq", "show", at, *local.flags).out
    assert "00000000  00 01 67 61 72 62 61 67 65 21 00 00 00 00 00 00  ..garbage!......" in text
    assert "and 3,626 bytes more: --raw writes them all" in text
    assert "\x1b" not in text


def test_a_key_that_comes_twice_is_shown_twice(run, local):
    at = local.die(b'{"message": "a", "message": "b"}', code="event.duplicate_key")
    text = run("dlq", "show", at, *local.flags).out
    assert '"message": "a"' in text
    assert '"message": "b"' in text


# ---- purge ----


def test_purged_letters_are_not_there_any_more(run, place):
    for number in range(6):
        place.die(b'{"id": "%d"}' % number)
    result = run("dlq", "purge", "0:1", "0:3", "0:4", "--yes", "--json", *place.flags)
    assert result.code == 0, result.err
    assert sorted(result.json["purged"]) == ["0:1", "0:3", "0:4"]
    assert addresses(run("dlq", "ls", "--json", *place.flags).json) == ["0:5", "0:2", "0:0"]
    for verb in ("show", "replay", "purge"):
        refused(run("dlq", verb, "0:3", *place.flags), 2, "letter 0:3 was purged")
    replayed = run("dlq", "replay", "--all", "--json", *place.flags).json["replayed"]
    assert [one["letter"] for one in replayed] == ["0:0", "0:2", "0:5"]
    assert len(place.read(place.dead)) == 8, "six letters, and two marks behind them"


def test_purged_letters_are_erased_up_to_the_first_that_is_kept(run, place):
    """For every reader of the topic, with the marks that nothing needs any more."""
    for number in range(5):
        place.die(b'{"id": "%d"}' % number)
    assert run("dlq", "replay", "0:0", *place.flags).code == 0
    told = run("dlq", "purge", "0:1", "0:3", "--yes", *place.flags)
    assert told.code == 0, told.err
    assert "erased 0 letters; 2 more when what is kept before them goes" in told.out
    assert len(place.read(place.dead)) == 7
    result = run("dlq", "purge", "0:0", "--yes", "--json", *place.flags).json
    assert result == {"purged": ["0:0"], "erased": 2, "behind": 1, "kept_because": None}
    assert [record.offset for record in place.read(place.dead)] == [2, 3, 4, 5, 6], "no mark more"
    refused(run("dlq", "show", "0:0", *place.flags), 2, "no dead letter at 0:0", "holds 0:2 to 0:6")
    assert addresses(run("dlq", "ls", "--json", *place.flags).json) == ["0:4", "0:2"]
    assert run("dlq", "purge", "--all", "--yes", "--json", *place.flags).json["erased"] == 3
    assert place.read(place.dead) == []
    assert run("dlq", "purge", "--all", "--yes", *place.flags).out == (
        "purged 0 letters\nerased 0 letters\n"
    )
    assert place.die(VALUE) == "0:7", "offsets go on: no address ever means another letter"
    assert addresses(run("dlq", "ls", "--json", *place.flags).json) == ["0:7"]


def test_each_partition_is_erased_as_far_as_it_can_be(run, tmp_path):
    place = Place(f"local://{tmp_path}/log", dead_partitions=2)
    for number in range(4):
        place.die(b"{}", in_=number % 2)
    purged = run("dlq", "purge", "0:0", "1:0", "1:1", "--yes", "--json", *place.flags).json
    assert (purged["erased"], purged["behind"]) == (3, 0)
    assert [record.offset for record in place.read(place.dead, 0)] == [1]
    assert place.read(place.dead, 1) == []


def test_what_someone_else_wrote_is_never_erased(run, local):
    """As on a topic of another kind, which --dead-topic names by mistake."""
    local.send(local.dead, Outgoing(b"an event", b"k", ()))
    at = local.die(VALUE)
    purged = run("dlq", "purge", "--all", "--yes", "--json", *local.flags).json
    assert (purged["purged"], purged["erased"], purged["behind"]) == ([at, "0:0"], 0, 1)
    assert len(local.read(local.dead)) == 3


def test_a_log_that_erases_nothing_says_why(run, tmp_path):
    """The letters are purged all the same."""
    place = Place(f"local://{tmp_path}/log", compacted=True)
    place.die(VALUE)
    told = run("dlq", "purge", "0:0", "--yes", *place.flags)
    assert told.code == 0, told.err
    assert "purged 1 letter\nerased 0 letters: " in told.out
    assert "is compacted" in told.out
    assert run("dlq", "ls", "--json", *place.flags).json["letters"] == 0
    assert len(place.read(place.dead)) == 2


def test_purge_takes_what_is_older_and_asks_first(run, local):
    local.die(VALUE, at_ms=1_760_000_000_000)
    local.die(VALUE, at_ms=1_770_000_000_000)
    result = run("dlq", "purge", "--before", "2026-01-01", *local.flags)
    refused(result, 2, "purge 1 letter?", "--yes")
    listed = [line.split()[0] for line in result.out.splitlines() if line[:2] == "0:"]
    assert listed == ["0:0"]
    said = on_a_terminal(["purge", "--before", "2026-01-01", *local.flags], b"n\n")
    assert b"purge 1 letter?" in said
    assert len(addresses(run("dlq", "ls", "--json", *local.flags).json)) == 2
    said = on_a_terminal(["purge", "--before", "2026-01-01", *local.flags], b"y\n")
    assert b"purged 1 letter" in said
    assert addresses(run("dlq", "ls", "--json", *local.flags).json) == ["0:1"]


def test_purge_all_takes_none_that_came_meanwhile(run, local, monkeypatch):
    local.die(VALUE)
    purge = Purge.run

    async def late(self, *arguments):
        thread = threading.Thread(target=local.die, args=[VALUE])
        thread.start()
        await asyncio.to_thread(thread.join)
        return await purge(self, *arguments)

    monkeypatch.setattr(Purge, "run", late)
    assert run("dlq", "purge", "--all", "--yes", *local.flags).code == 0
    assert addresses(run("dlq", "ls", "--json", *local.flags).json) == ["0:1"]


def test_purge_reads_each_letter_once_however_many_there_are(run, local, monkeypatch):
    """What is erased is known by the look that found what is meant, and needs no mark."""
    local.die(VALUE)
    (letter,) = local.read(local.dead)
    more = Outgoing(letter.value, letter.key, letter.headers)
    for _ in range(12):
        local.send(local.dead, *[more] * 10_000)
    seen = 0
    read_all = LocalReader.read

    async def counted(self, topic, partition, at, **limits):
        nonlocal seen
        slice_ = await read_all(self, topic, partition, at, **limits)
        seen += sum(record.offset < 120_001 for record in slice_.records)
        return slice_

    monkeypatch.setattr(LocalReader, "read", counted)
    told = run("dlq", "purge", "--all", "--yes", *local.flags)
    assert told.out.endswith("purged 120,001 letters\nerased 120,001 letters\n"), told.err
    assert seen == 120_001
    assert local.read(local.dead) == []


# ---- bad input ----


@pytest.mark.parametrize("verb", [["show"], ["replay"], ["edit"], ["purge", "--yes"]])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("0:7", "no dead letter at 0:7"),
        ("3:0", "partitions 0 to 0"),
        ("seven", "partition:offset"),
        ("0:x", "partition:offset"),
        ("-1:0", "No such option"),
        ("0:99999999999999999999999", "partition:offset"),
        ("\u0663:\u0661", "partition:offset"),
    ],
)
def test_an_address_of_nothing(run, local, verb, address, words):
    local.die(VALUE)
    refused(run("dlq", *verb, address, *local.flags), 2, words)


def test_the_address_of_a_mark(run, local):
    local.die(VALUE)
    run("dlq", "replay", "0:0", *local.flags)
    refused(run("dlq", "show", "0:1", *local.flags), 2, "no dead letter at 0:1")


@pytest.mark.parametrize("verb", [["ls"], ["show", "0:0"], ["replay", "--all"], ["purge", "0:0"]])
def test_no_log_and_no_topic(run, local, tmp_path, verb):
    missing = f"{tmp_path}/mistyped"
    refused(run("dlq", *verb, "--broker", f"local://{missing}"), 2, f"no log at {missing}")
    assert not Path(missing).exists()
    refused(run("dlq", *verb, "--broker", local.url), 2, "events.dead", "topics apply")


def test_a_kafka_without_the_topic(run, kafka):
    flags = ("--broker", kafka.url, "--dead-topic", "never-made")
    refused(run("dlq", "ls", *flags), 2, "never-made", "topics apply")


def test_neither_addresses_nor_a_choice_or_both(run, local):
    for verb in ("replay", "purge"):
        refused(run("dlq", verb, *local.flags), 2, "--all")
        refused(run("dlq", verb, "0:0", "--all", *local.flags), 2, "not both")


@pytest.mark.parametrize("when", ["yesterday", "5x", "", "2026-13-01", "999999999999d"])
def test_a_time_that_is_none(run, local, when):
    refused(run("dlq", "ls", "--since", when, *local.flags), 2, "2h")


def test_a_source_topic_that_is_gone(run, local):
    at = local.die(VALUE)
    path_of(Path(local.url.removeprefix("local://")), local.raw).unlink()
    refused(run("dlq", "replay", at, *local.flags), 2, local.raw, "create that topic again")
    skipped = run("dlq", "replay", "--all", "--json", *local.flags).json["skipped"]
    assert skipped[0]["code"] == "dlq.source"


def test_a_partition_that_is_gone_leaves_it_to_the_key(run, local):
    sent = Outgoing(VALUE, b"conv", (), 7, 1_760_000_000_000)
    at = local.bury(0, sent)
    result = run("dlq", "replay", at, "--json", *local.flags)
    assert result.json["replayed"][0]["to"]["partition"] in {0, 1}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("x", b"1")],
        [(f"{CONNECT}topic", b"t")],
        [(f"{CONNECT}topic", b"t"), (f"{CONNECT}partition", b"x"), (f"{CONNECT}offset", b"-1")],
        [("streamapp.dlq", b"")],
        [(f"{CONNECT}topic", b"\xff\xfe"), (f"{CONNECT}stage", b"\xff")],
    ],
)
def test_what_someone_else_wrote_there(run, place, headers):
    place.send(place.dead, Outgoing(b"\x00foreign", b"streamapp.dlq", headers))
    at = place.die(VALUE)
    listing = run("dlq", "ls", "--json", *place.flags)
    assert listing.code == 0, listing.err
    assert addresses(listing.json) == ["0:0", at] or addresses(listing.json) == [at, "0:0"]
    assert run("dlq", "ls", *place.flags).code == 0
    assert "someone else wrote it" in run("dlq", "show", "0:0", *place.flags).out
    refused(run("dlq", "replay", "0:0", *place.flags), 2, "someone else wrote it")
    refused(run("dlq", "edit", "0:0", "--set", "a=1", *place.flags), 2, "someone else wrote it")
    result = run("dlq", "replay", "--all", "--json", *place.flags).json
    assert [one["letter"] for one in result["replayed"]] == [at]
    assert run("dlq", "purge", "0:0", "--yes", *place.flags).code == 0
    assert addresses(run("dlq", "ls", "--json", *place.flags).json) == [at]


@pytest.mark.parametrize(
    "value",
    [b"", b"{}", b"[]", b'{"did":"eaten","letters":[]}', b'{"did":"purged","letters":[[5,1]]}'],
)
def test_a_mark_that_is_none_hides_nothing(run, local, value):
    at = local.die(VALUE)
    local.send(local.dead, Outgoing(value, b"streamapp.dlq", [("streamapp.dlq", b"purged")]))
    assert at in addresses(run("dlq", "ls", "--json", *local.flags).json)
    assert run("dlq", "show", "0:1", *local.flags).code == 0


def test_letters_of_kafka_connect_are_letters(run, local):
    local.send(local.raw, Outgoing(VALUE, b"k", (), 0))
    names = {
        "topic": local.raw, "partition": "0", "offset": "0", "connector.name": "sink",
        "stage": "VALUE_CONVERTER", "class.name": "x.Json", "exception.class.name": "x.DataException",
        "exception.message": "no schema",
    }  # fmt: skip
    headers = [(CONNECT + name, value.encode()) for name, value in names.items()]
    local.send(local.dead, Outgoing(VALUE, b"k", headers, timestamp_ms=-1))
    (letter,) = run("dlq", "ls", "--json", *local.flags).json["shown"]
    assert (letter["stage"], letter["code"]) == ("VALUE_CONVERTER", "x.DataException")
    assert run("dlq", "replay", "0:0", *local.flags).code == 0
    assert local.read(local.raw, 0)[1].value == VALUE
