import asyncio
import re

import pytest

from streamapp.core.tokens import create_token
from streamapp.gateway import GatewayConfig
from streamapp.gateway.problem import ProblemError
from streamapp.gateway.rates import CALLERS_MAX, Rates, network_of


class Clock:
    """Stands still until it is told."""

    s = 1_000.0

    def now_us(self):
        return int(self.s * 1e6)

    def monotonic_s(self):
        return self.s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rates(clock):
    def make(**config):
        return Rates(GatewayConfig(**config), clock.monotonic_s)

    return make


def fields(headers):
    """{policy: (quota, unit, window, remaining, seconds)} of the two header fields."""
    policies = re.findall(
        r'"(\w+)";q=(\d+)(?:;qu="([\w-]+)")?;w=(\d+)', headers["RateLimit-Policy"]
    )
    limits = re.findall(r'"(\w+)";r=(\d+);t=(\d+)', headers["RateLimit"])
    assert [name for name, *_ in policies] == [name for name, *_ in limits]
    return {
        name: (int(q), unit or "requests", int(w), int(r), int(t))
        for (name, q, unit, w), (_, r, t) in zip(policies, limits, strict=True)
    }


async def post(gate, body=b'{"a": 1}', **headers):
    headers = {"Content-Type": "application/json", **headers}
    async with gate.http.post(gate.url + "/ingest", data=body, headers=headers) as answer:
        return answer.status, answer.headers, await answer.json(content_type=None)


async def test_nothing_is_limited_or_said_by_default(gate):
    for _ in range(50):
        status, headers, _ = await post(gate)
        assert status == 200
    assert "RateLimit" not in headers
    assert "RateLimit-Policy" not in headers


async def test_an_address_has_so_many_requests_in_a_window(start, clock):
    gate = await start(rate_requests_max=2, rate_window_s=10, clock=clock)
    _, headers, _ = await post(gate)
    assert fields(headers) == {"requests": (2, "requests", 10, 1, 10)}
    clock.s += 3.5
    _, headers, _ = await post(gate)
    assert fields(headers) == {"requests": (2, "requests", 10, 0, 7)}
    status, headers, problem = await post(gate)
    assert (status, problem["code"]) == (429, "request.rate")
    assert fields(headers) == {"requests": (2, "requests", 10, 0, 7)}
    assert headers["Retry-After"] == "7"  # not before the window ends
    assert "STREAMAPP_RATE_REQUESTS_MAX" in problem["fix"]
    assert len(gate.producer.records) == 2
    clock.s += 6.4
    assert (await post(gate))[0] == 429
    clock.s += 0.1
    status, headers, _ = await post(gate)
    assert (status, fields(headers)["requests"]) == (200, (2, "requests", 10, 1, 10))


async def test_bytes_count_when_they_came_and_are_owed(start, clock):
    gate = await start(rate_bytes_max=100, rate_window_s=10, clock=clock)
    body = b'{"a": "%s"}' % (b"x" * 240)
    status, headers, _ = await post(gate, body)
    assert status == 200
    for waits_s, status in ((1, 429), (9, 429), (10, 200)):
        clock.s += waits_s
        got, headers, _ = await post(gate, b"{}")
        assert got == status
    assert fields(headers)["bytes"][:3] == (100, "content-bytes", 10)
    assert fields(headers)["bytes"][3] <= 50  # of 250 bytes two windows paid 200


async def test_a_compressed_body_counts_as_it_came(start, clock):
    import gzip

    gate = await start(rate_bytes_max=10_000, clock=clock)
    body = gzip.compress(b'{"a": "%s"}' % (b"x" * 100_000))
    await post(gate, body, **{"Content-Encoding": "gzip"})
    _, headers, _ = await post(gate, b"{}")
    assert fields(headers)["bytes"][3] == 10_000 - len(body) - 2


async def test_tokens_are_counted_apart_from_each_other_and_from_guesses(start, clock, tmp_path):
    path = tmp_path / "tokens.json"
    shown = [
        {"Authorization": f"Bearer {create_token(path, name, ['produce:*'])[1]}"} for name in "ab"
    ]
    gate = await start(rate_requests_max=1, tokens_file=path, clock=clock)
    assert [(await post(gate, **headers))[0] for headers in shown * 2] == [200, 200, 429, 429]
    guess = {"Authorization": "Bearer guess"}
    status, headers, _ = await post(gate, **guess)
    assert (status, fields(headers)["requests"][3]) == (401, 0)
    assert (await post(gate, **guess))[0] == 429
    assert (await post(gate))[0] == 429  # none at all is a guess, too


async def test_probes_are_not_counted(start, clock):
    gate = await start(rate_requests_max=1, clock=clock)
    for _ in range(3):
        assert (await gate.get("/healthz"))[0] == 200
    assert (await post(gate))[0] == 200


async def test_confluent_is_told_in_its_words(start, clock):
    gate = await start(rate_requests_max=1, clock=clock)
    await post(gate)
    async with gate.http.get(gate.url + "/topics") as answer:
        assert answer.status == 429
        assert answer.headers["Retry-After"] == "10"
        assert fields(answer.headers)["requests"][3] == 0
        assert (await answer.json())["error_code"] == 42901


async def test_a_stream_without_an_end_is_limited_too(serve_rest, log_url):
    rest = await serve_rest(log_url, rate_bytes_max=20, rate_window_s=3600)
    host, port = rest.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(
            b"POST /v3/clusters/c/topics/plain/records HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        record = b'{"value":{"type":"JSON","data":"xxxxxxxxxxxxx"}}'
        got = b""
        for seen in (b'"error_code":200', b'"error_code":42901'):
            writer.write(b"%x\r\n%s\r\n" % (len(record), record))
            while seen not in got:
                chunk = await reader.read(4096)
                assert chunk, got
                got += chunk
    finally:
        writer.close()
    assert len(await rest.records("plain", 0)) + len(await rest.records("plain", 1)) == 1


def test_what_is_kept_of_strangers_is_bounded_and_pushes_out_no_token(rates):
    limited = rates(rate_requests_max=1)
    limited.take("token", "")
    for n in range(CALLERS_MAX + 10):
        limited.take("", f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    limited.take("", "10.0.0.0")  # forgotten, so it begins anew
    with pytest.raises(ProblemError):
        limited.take("", "10.0.64.9")
    with pytest.raises(ProblemError):
        limited.take("token", "")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9%eth0", "2001:db8:1:2::"),
        ("::1", "::"),
        ("", ""),
    ],
)
def test_an_ipv6_subscriber_is_a_network(address, network):
    assert network_of(address) == network
