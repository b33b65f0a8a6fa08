"""The answer to one event, to the byte, where it is written at once and where it is not."""

import re

import pytest

BODY = b'{"id":"a","type":"T"}'


def request(version="1.1", *more):
    lines = [
        f"POST /ingest HTTP/{version}",
        "Host: localhost",
        f"Content-Length: {len(BODY)}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + BODY


async def answered(gate, asked, until=b'"offset":0}'):
    head, _, body = (await gate.raw(asked, until=until)).partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return status, dict(field.split(": ", 1) for field in fields), body


async def test_an_answer_has_a_whole_head(gate):
    status, fields, body = await answered(gate, request())
    assert status == "HTTP/1.1 200 OK"
    assert set(fields) == {"Server", "Content-Type", "Content-Length", "Date"}
    assert (fields["Server"], fields["Content-Type"]) == ("streamapp", "application/json")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", fields["Date"])
    assert body == b'{"status":"received","event_type":"T","id":"a","partition":0,"offset":0}'
    assert int(fields["Content-Length"]) == len(body)


async def test_requests_that_follow_each_other_are_answered_on_one_connection(gate):
    got = await gate.raw(request() * 3, until=b'"offset":2}')
    assert got.count(b"HTTP/1.1 200 OK") == 3
    assert [int(n) for n in re.findall(rb'"offset":(\d)', got)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("version", "more", "connection"),
    [
        ("1.1", ["Connection: close"], "close"),
        ("1.0", [], None),
        ("1.0", ["Connection: keep-alive"], "keep-alive"),
    ],
)
async def test_who_wants_another_connection_is_told(gate, version, more, connection):
    status, fields, body = await answered(gate, request(version, *more))
    assert status.endswith("200 OK")
    assert fields.get("Connection") == connection
    assert int(fields["Content-Length"]) == len(body)


async def test_an_answer_with_more_in_its_head_has_it(start):
    _, fields, body = await answered(await start(rate_requests_max=10), request())
    assert "r=9" in fields["RateLimit"]
    assert int(fields["Content-Length"]) == len(body)
