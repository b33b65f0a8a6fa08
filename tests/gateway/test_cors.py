import pytest

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse
from streamapp.gateway import GatewayConfig
from streamapp.gateway.cors import origins_of

APP = "https://app.example"
PAGE = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
ASKS = {
    **PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}
ALLOW = "Access-Control-Allow-Origin"


def named(headers):
    return {name for name in headers if name.startswith("Access-Control-")}


async def ask(gate, method, path, headers, **options):
    async with gate.http.request(method, gate.url + path, headers=headers, **options) as answer:
        return answer.status, answer.headers


@pytest.mark.parametrize("path", ["/ingest", "/topics/plain", "/v1/events", "/nothing"])
async def test_without_a_named_origin_no_page_is_answered(gate, path):
    status, headers = await ask(gate, "OPTIONS", path, ASKS)
    assert status in {400, 403, 404, 405}
    assert named(headers) == set()
    status, headers = await ask(gate, "POST", path, PAGE, json={"a": 1})
    assert status in {403, 404}
    assert named(headers) == set()
    assert gate.producer.records == []


async def test_a_page_of_a_named_origin_asks_then_sends(start):
    gate = await start(cors_origins=frozenset({APP}))
    status, headers = await ask(gate, "OPTIONS", "/ingest", ASKS)
    assert status == 204
    assert headers[ALLOW] == APP
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in headers
    status, headers = await ask(gate, "POST", "/ingest", PAGE, json={"a": 1})
    assert (status, headers[ALLOW]) == (200, APP)
    assert "RateLimit" in headers["Access-Control-Expose-Headers"]
    assert len(gate.producer.records) == 1


async def test_a_page_reads_why_it_was_refused(start):
    """A browser hides an answer without the header, also an error's."""
    gate = await start(cors_origins=frozenset({APP}), token="secret")
    assert (await ask(gate, "OPTIONS", "/ingest", ASKS))[0] == 204  # browsers send no token then
    for path, status in (("/ingest", 401), ("/topics/plain", 401), ("/nothing", 404)):
        got, headers = await ask(gate, "POST", path, PAGE, json={"a": 1})
        assert (got, headers[ALLOW]) == (status, APP)


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://app.example", "https://app.example:8443", "null", ""]
)
async def test_another_page_stays_outside(start, origin):
    gate = await start(cors_origins=frozenset({APP}))
    status, headers = await ask(gate, "OPTIONS", "/ingest", {**ASKS, "Origin": origin})
    assert (status, named(headers)) == (405, set())
    assert headers["Vary"] == "Origin"  # no cache may give it another's answer
    status, headers = await ask(gate, "POST", "/ingest", {**PAGE, "Origin": origin}, json={"a": 1})
    assert (status, named(headers)) == (403, set())
    assert gate.producer.records == []


async def test_the_handshake_of_webhooks_is_not_mistaken_for_a_browser(start):
    gate = await start(cors_origins=frozenset({APP}))
    asks = {"WebHook-Request-Origin": "sender.example"}
    status, headers = await ask(gate, "OPTIONS", "/events", asks)
    assert status == 200
    assert headers["WebHook-Allowed-Origin"] == "sender.example"


async def test_wanted_headers_do_not_split_the_answer(start):
    gate = await start(cors_origins=frozenset({APP}))
    asks = {**ASKS, "Access-Control-Request-Headers": "x-ä"}
    status, headers = await ask(gate, "OPTIONS", "/ingest", asks)
    assert status == 204
    assert "Access-Control-Allow-Headers" not in headers


@pytest.mark.parametrize(
    "text", ["*", "app.example", "https://a.example/", "null", "file://", "https://a b", "ftp://a"]
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(Refuse, match="is no origin") as refused:
        GatewayConfig.of(Settings(cors_origins=f"{APP}, {text}"))
    assert refused.value.code == "cors.origin"


def test_origins_are_a_list_with_commas():
    assert origins_of("") == frozenset()
    assert origins_of(f" {APP.upper()} ,http://localhost:8080,") == {APP, "http://localhost:8080"}
