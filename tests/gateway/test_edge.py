import asyncio

import pytest

TOKEN = "s3cret-ä"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("wrong"), bearer(""), {"Authorization": TOKEN}, bearer(TOKEN + "x"), bearer("ö")],
)
@pytest.mark.parametrize("path", ["/ingest", "/v1/events", "/v1/events/nope"])
async def test_without_the_token_nobody_sends(start, headers, path):
    gate = await start(token=TOKEN)
    async with gate.http.post(gate.url + path, json={"message": "x"}, headers=headers) as answer:
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        problem = await answer.json(content_type=None)
    assert problem["code"] == "request.token"
    assert TOKEN not in str(problem)
    assert gate.producer.records == []


async def test_with_the_token_events_are_taken(start):
    gate = await start(token=TOKEN)
    for scheme in ("Bearer", "bearer"):  # RFC 9110, section 11.1
        headers = {"Authorization": f"{scheme} {TOKEN}"}
        assert (await gate.post("/ingest", {"message": "x"}, headers=headers))[0] == 200


async def test_a_wrong_token_is_told_before_the_body_is_read(start):
    gate = await start(token=TOKEN)
    request = b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    assert (await gate.raw(request, until=b"request.token")).startswith(b"HTTP/1.1 401")


HOSTS = [
    ("evil.example", 403), ("localhost.evil.example:80", 403), ("127.0.0.1.evil.example", 403),
    ("xlocalhost", 403), ("localhost:9382", 200), ("LOCALHOST", 200), ("me.localhost", 200),
    ("127.0.0.1", 200), ("[::1]:1", 200), ("192.168.1.2:80", 200),
]  # fmt: skip


@pytest.mark.parametrize(("host", "status"), HOSTS)
async def test_a_name_that_was_made_to_lead_here_leads_nowhere(start, host, status):
    """A page whose name is rebound to the loopback is of the same origin as its gateway."""
    gate = await start()
    got, problem = await gate.post("/ingest", {"a": 1}, headers={"Host": host})
    assert (got, problem.get("code")) == (status, "request.host" if status == 403 else None)
    gate = await start(token=TOKEN)  # which no page has
    headers = {"Host": host, **bearer(TOKEN)}
    assert (await gate.post("/ingest", {"a": 1}, headers=headers))[0] == 200


async def test_health_and_metrics_ask_for_no_token(start):
    gate = await start(token=TOKEN)
    for path in ("/healthz", "/readyz", "/metrics"):
        async with gate.http.get(gate.url + path) as answer:
            assert answer.status == 200
            assert answer.headers["Server"] == "streamapp"


async def test_metrics_ask_for_a_token_when_they_are_told_to(start):
    gate = await start(token=TOKEN, metrics_scope="read")
    for headers, status in (({}, 401), (bearer(TOKEN), 200)):
        async with gate.http.get(gate.url + "/metrics", headers=headers) as answer:
            assert answer.status == status
    assert (await gate.get("/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/", 404, "request.path", None),
        ("POST", "/ingest/", 404, "request.path", None),
        ("GET", "/ingest", 405, "request.method", "POST"),
        ("DELETE", "/v1/events/events.raw", 405, "request.method", "OPTIONS, POST"),
        ("POST", "/healthz", 405, "request.method", "GET, HEAD"),
    ],
)
async def test_wrong_paths_and_methods_are_problems(gate, method, path, status, code, allow):
    async with gate.http.request(method, gate.url + path) as answer:
        assert answer.status == status
        assert answer.content_type == "application/problem+json"
        assert answer.headers.get("Allow") == allow
        assert (await answer.json(content_type=None))["code"] == code


async def test_headers_are_bounded_and_the_answer_tells_nothing_of_us(gate, caplog):
    for request in (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %b\r\n\r\n" % (b"x" * 20_000),
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 200 + b"\r\n",
        b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % (b"x" * 20_000),
        b"\x16\x03\x01 this is not HTTP\r\n\r\n",
    ):
        answer = await gate.raw(request)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.0 400"))
        assert b'"code":"request.http"' in answer
        assert b"\r\nServer: streamapp\r\n" in answer
        assert b"Traceback" not in answer
        assert b".py" not in answer
    assert "Traceback" not in caplog.text


async def test_requests_are_counted_by_route_and_never_by_a_clients_word(gate):
    await gate.post("/ingest", {"message": "x"})
    await gate.post("/v1/events/secret-name", [])
    await gate.get("/no/such/path")
    await gate.raw(b"BREW /ingest HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with gate.http.get(gate.url + "/metrics") as answer:
        assert answer.content_type == "text/plain"
        text = await answer.text()
    total = "streamapp_http_requests_total"
    assert f'{total}{{code="200",method="POST",route="/ingest"}} 1.0' in text
    assert f'{total}{{code="404",method="POST",route="/v1/events/{{topic}}"}} 1.0' in text
    assert f'{total}{{code="404",method="GET",route="unmatched"}} 1.0' in text
    assert 'streamapp_ingest_events_total{result="received"} 1.0' in text
    assert "streamapp_inflight_events 0.0" in text
    assert "secret-name" not in text
    assert "BREW" not in text


@pytest.mark.parametrize("path", ["/ingest?from=shop", "/%69ngest", "/ingest#top"])
async def test_a_route_is_found_however_its_path_is_spelled(gate, path):
    body = b'{"message": "x"}'
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = await gate.raw(head.encode() + body, until=b'"received"')
    assert answer.startswith(b"HTTP/1.1 200")
    assert gate.producer.values == [body]
    assert b'method="POST",route="/ingest"} 1.0' in gate.metrics.text()


@pytest.mark.parametrize(("path", "label"), [("/healthz", "/healthz"), ("/no", "unmatched")])
async def test_an_expectation_that_nobody_knows_is_refused_as_all_else(gate, path, label):
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\nConnection: close\r\n\r\n"
    answer = await gate.raw(request.encode())
    assert answer.startswith(b"HTTP/1.1 417")
    assert b'"code":"request.http"' in answer
    assert f'code="417",method="GET",route="{label}"'.encode() in gate.metrics.text()


async def test_many_clients_at_once_all_get_their_own_answer(gate):
    async def one(n: int) -> None:
        status, answer = await gate.post("/ingest", {"message": "x", "id": str(n)})
        assert (status, answer["id"]) == (200, str(n))

    await asyncio.gather(*(one(n) for n in range(200)))
    assert len(gate.producer.records) == 200
