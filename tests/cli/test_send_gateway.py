"""``streamapp send`` to a running gateway."""

import json

import pytest
from gateway_thread import GatewayThread


@pytest.fixture(scope="module")
def gateway():
    with GatewayThread() as running:
        yield running


def messages(gateway):
    found = []
    for partition in range(gateway.log.topics()["events.raw"].partitions):
        found += gateway.log.read("events.raw", partition, 0).records
    return [json.loads(record.value)["message"] for record in found]


def test_a_message_without_a_file(run, gateway):
    done = run("send", "--message", 'say "hello"', "--type", "Greeting", "--url", gateway.url)
    assert (done.code, done.out.split(":")[0][:9]) == (0, "sent 1 in")
    assert 'say "hello"' in messages(gateway)


def test_a_topic(run, gateway):
    told = run("send", "--message", "x", "--topic", "events.raw", "--url", gateway.url, "--json")
    assert (told.code, told.json["accepted"]) == (0, 1)
    refused = run("send", "--message", "x", "--topic", "nowhere", "--url", gateway.url)
    assert (refused.code, "'nowhere'" in refused.err, "events.raw" in refused.err) == (
        2,
        True,
        True,
    )


@pytest.mark.parametrize("arguments", [[], ["a.txt", "--message", "x"]])
def test_a_file_or_a_message(run, arguments):
    done = run("send", *arguments)
    assert done.code == 2
    assert "--message" in done.err


def test_a_row_that_is_no_event_is_told_with_its_line(run, clean, gateway):
    (clean / "a.jsonl").write_text('{"message": "good"}\n{"message": "bad", "time": "never"}\n')
    done = run("send", "a.jsonl", "--url", gateway.url, "--json")
    assert (done.code, done.json["accepted"], done.json["codes"]) == (65, 1, {"event.time": 1})
    assert done.json["reasons"][0]["line"] == 2
