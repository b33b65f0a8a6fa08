"""Every route asks for its scope, whichever protocol it speaks."""

import asyncio
import base64
import io
import re

import pytest
from aiohttp import hdrs

from streamapp.core.config import Settings
from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.core.scopes import Verb
from streamapp.core.tokens import LOOK_EVERY_S, create_token, revoke_tokens
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.scopes import RULES, rule
from streamapp.topics import catalogue

PLACES = {"topic": "plain", "cluster": "any", "group": "g", "instance": "i", "partition": "0"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


@pytest.fixture
def token(path):
    """Headers of a new token with these scopes."""

    def make(*scopes, name="t"):
        return bearer(create_token(path, name, scopes)[1])

    return make


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def call(gate, method, path, headers, **options):
    async with gate.http.request(method, gate.url + path, headers=headers, **options) as answer:
        body = await answer.read() if method != "HEAD" else b""
        return answer, body


def routes(producer):
    """(method, path) of every route there is."""
    app = create_app(GatewayConfig(), producer, catalogue.load(), Metrics())
    return sorted(
        {
            (route.method, route.resource.canonical)
            for route in app.router.routes()
            if route.method != hdrs.METH_HEAD
        }
    )


def test_every_route_says_what_it_takes(producer):
    """One that says nothing takes admin, which is safe, and no reader knows it."""
    unsaid = [
        (method, path)
        for method, path in routes(producer)
        if method != hdrs.METH_OPTIONS and method not in RULES.get(path, {})
    ]
    assert unsaid == []
    assert rule("GET", "/no/such/route").scope == "admin"


TOO_LITTLE = {
    Verb.PRODUCE: ["produce:other", "consume:*", "read"],
    Verb.CONSUME: ["produce:*", "read"],
    Verb.DESCRIBE: ["produce:other", "consume:other"],
    Verb.READ: ["produce:*", "consume:*"],
    Verb.ADMIN: ["produce:*", "consume:*", "read"],
    Verb.ANY: [],
}


async def test_every_route_asks_for_its_scope(start, producer, token, path):
    shown = {scope: token(scope, name=f"t{n}") for n, scope in enumerate(
        ("produce:other", "consume:other", "read", "produce:*", "consume:*", "admin")
    )}  # fmt: skip
    gate = await start(tokens_file=path)
    for method, canonical in routes(producer):
        takes = rule(method, canonical)
        if takes.verb is Verb.OPEN:
            continue
        names = re.findall(r"{(\w+)}", canonical)
        fill = dict.fromkeys(names, "x") | {"version": "1"}
        where = canonical.format_map({**fill, **PLACES})
        answer, body = await call(gate, method, where, {})
        assert answer.status == 401, (method, where)
        assert b"request.token" in body or b'"error_code":40101' in body
        scope = takes.scope.format_map(PLACES)
        for other in TOO_LITTLE[takes.verb]:
            answer, body = await call(gate, method, where, shown[other])
            assert answer.status == 403, (method, where, other)
            assert scope.encode() in body, (method, where, body)
            assert f'scope="{scope}"' in answer.headers["WWW-Authenticate"]
            assert b'"request.scope"' in body or b'"error_code":40301' in body
        answer, body = await call(gate, method, where, shown["admin"])
        assert answer.status not in {401, 403}, (method, where, body)
    assert producer.records == []


ENOUGH = [
    ("POST", "/ingest", "produce:events.raw"),
    ("POST", "/ingest", "produce:events.*"),
    ("POST", "/v1/events", "produce:events.raw"),
    ("POST", "/events", "produce:events.raw"),
    ("POST", "/v1/events/events.raw", "produce:events.raw"),
    ("POST", "/topics/events.raw", "produce:events.raw"),
    ("POST", "/v3/clusters/c/topics/events.raw/records", "produce:events.raw"),
    ("POST", "/v3/clusters/c/topics/events.raw/records:batch", "produce:events.raw"),
    ("GET", "/topics", "read"),
    ("GET", "/topics/events.raw", "read"),
    ("GET", "/topics/events.raw", "consume:events.raw"),
    ("HEAD", "/topics/events.raw/partitions", "produce:events.raw"),
    ("GET", "/brokers", "produce:other"),
    ("GET", "/v3/clusters", "produce:other"),
    ("POST", "/consumers/g", "consume:any"),
]


@pytest.mark.parametrize(("method", "where", "scope"), ENOUGH)
async def test_the_scope_alone_is_enough(start, token, path, method, where, scope):
    headers = {**token(scope), "Content-Type": "application/json"}
    gate = await start(tokens_file=path)
    answer, body = await call(gate, method, where, headers, data=io.BytesIO(b"{}"))
    assert answer.status not in {401, 403}, body


async def test_the_topic_of_a_path_is_unquoted_before_it_is_compared(start, token, path):
    headers = token("produce:events.raw")
    gate = await start(tokens_file=path)
    answer, _ = await call(gate, "POST", "/v1/events/events%2Eraw", headers, json={"a": 1})
    assert answer.status == 200
    answer, body = await call(gate, "POST", "/v1/events/a%22b%0Ac%C3%A4", headers, json={"a": 1})
    assert answer.status == 403
    assert 'scope="produce:a?b?c?"' in answer.headers["WWW-Authenticate"]
    assert b'produce:a\\"b\\nc' in body


async def test_created_and_revoked_tokens_hold_without_a_restart(start, path):
    gate = await start(tokens_file=path)

    async def until(status, **headers):
        async with asyncio.timeout(20):
            while (await gate.post("/ingest", {"a": 1}, headers=headers))[0] != status:
                await asyncio.sleep(0.01)

    await until(200)  # nobody is asked
    shown = bearer(create_token(path, "shop", ["produce:*"])[1])
    await until(401)
    await until(200, **shown)
    revoke_tokens(path, ["shop"])
    await until(401, **shown)
    path.unlink()
    await asyncio.sleep(2 * LOOK_EVERY_S)
    await until(401)


async def test_the_token_of_the_settings_may_do_everything(start, token, path):
    token("read")
    gate = await start(tokens_file=path, token="master")
    assert (await gate.post("/ingest", {"a": 1}, headers=bearer("master")))[0] == 200
    assert (await gate.post("/ingest", {"a": 1}, headers=bearer("maste")))[0] == 401
    assert (await gate.get("/topics", headers=bearer("master")))[0] not in {401, 403}


async def test_a_token_goes_as_password_too(start, path):
    """Confluent's own clients know user names and passwords."""
    _, secret = create_token(path, "shop", ["produce:events.raw"])
    gate = await start(tokens_file=path)
    for given, status in ((f"me:{secret}", 200), (f":{secret}", 200), (secret, 401), ("me:x", 401)):
        headers = {"Authorization": "Basic " + base64.b64encode(given.encode()).decode()}
        assert (await gate.post("/ingest", {"a": 1}, headers=headers))[0] == status, given
    for broken in ("Basic !", "Basic", "Basic \xe4", "basic " + base64.b64encode(b"\xff").decode()):
        assert (await gate.post("/ingest", {}, headers={"Authorization": broken}))[0] == 401


async def test_a_token_lets_in_whatever_the_host_is_called(start, token, path):
    headers = {"Host": "gateway.example", **token("produce:*")}
    gate = await start(tokens_file=path)
    assert (await gate.post("/ingest", {"a": 1}, headers=headers))[0] == 200


async def test_a_consumer_reads_what_its_token_may(serve_rest, log_url, token, path):
    plain, raw, both = (
        token(*scopes, name=f"t{n}")["Authorization"]
        for n, scopes in enumerate(
            (["consume:plain"], ["consume:events.raw"], ["consume:*", "produce:plain"])
        )
    )
    rest = await serve_rest(log_url, tokens_file=path)
    at = "/consumers/g/instances/i"

    async def ask(method, where, shown, body=None):
        return await rest.call(
            method, where, body, Authorization=shown, Content_Type="application/vnd.kafka.v2+json"
        )

    assert (await ask("POST", "/consumers/g", plain, {"name": "i"}))[0] == 200
    denied = {"topics": ["plain", "events.raw"]}
    status, answer = await ask("POST", at + "/subscription", plain, denied)
    assert (status, answer["error_code"]) == (403, 40301)
    assert "consume:events.raw" in answer["message"]
    for body, where in (
        ({"partitions": [{"topic": "events.raw", "partition": 0}]}, "/assignments"),
        ({"partitions": [{"topic": "events.raw", "partition": 0}]}, "/positions/end"),
        ({"offsets": [{"topic": "events.raw", "partition": 0, "offset": 0}]}, "/positions"),
        ({"offsets": [{"topic": "events.raw", "partition": 0, "offset": 0}]}, "/offsets"),
    ):
        assert (await ask("POST", at + where, plain, body))[0] == 403, where
    body = {"partitions": [{"topic": "events.raw", "partition": 0}]}
    assert (await ask("GET", at + "/offsets", plain, body))[0] == 403
    assert (await ask("GET", at + "/topics/events.raw", plain))[0] == 403
    # A pattern names what the token may see, and nothing else.
    assert (await ask("POST", at + "/subscription", plain, {"topic_pattern": ".*"}))[0] == 204
    assert (await ask("GET", at + "/subscription", plain))[1] == {"topics": ["plain"]}
    # Whoever learns an instance's name does not read through it.
    for method, where in (("GET", "/records"), ("GET", "/subscription"), ("DELETE", "")):
        status, answer = await ask(method, at + where, raw)
        assert (status, answer["error_code"]) == (403, 40301), where
    await rest.producer.send("plain", [])
    assert (await ask("GET", at + "/records?timeout=0", both))[0] == 200
    assert (await ask("DELETE", at, both))[0] == 204


async def test_a_request_that_waits_is_asked_again_what_it_may(serve_rest, log_url, token, path):
    """The instance may be given another topic by another client meanwhile."""
    plain = token("consume:plain", name="a")["Authorization"]
    every = token("consume:*", "produce:*", name="b")["Authorization"]
    rest = await serve_rest(log_url, tokens_file=path)
    at = "/consumers/g/instances/i"

    async def ask(method, where, shown, body=None):
        return await rest.call(
            method, where, body, Authorization=shown, Content_Type="application/vnd.kafka.v2+json"
        )

    made = {"name": "i", "format": "binary", "auto.offset.reset": "earliest"}
    assert (await ask("POST", "/consumers/g", every, made))[0] == 200
    assert (await ask("POST", at + "/subscription", every, {"topics": ["plain"]}))[0] == 204
    await ask("POST", "/v1/events", every, {"message": "secret"})
    polls = [asyncio.create_task(ask("GET", at + "/records?timeout=2000", plain))]
    await asyncio.sleep(0.3)
    raw = {"topics": ["events.raw"]}
    moving = asyncio.create_task(ask("POST", at + "/subscription", every, raw))
    await asyncio.sleep(0.3)
    polls += [
        asyncio.create_task(ask("GET", at + "/records?timeout=1000", plain)) for _ in range(2)
    ]
    assert (await moving)[0] == 204
    (first, _), *later = [await poll for poll in polls]
    assert first in {200, 403}
    assert [status for status, _ in later] == [403, 403]


def test_the_settings_are_the_gateway_s(tmp_path):
    settings = Settings(
        home=tmp_path,
        gateway_cert_file=tmp_path / "cert",
        gateway_key_file=tmp_path / "key",
        gateway_client_ca_file=tmp_path / "ca",
        cors_origins="https://a.example",
        metrics_scope="read",
        rate_requests_max=1,
        rate_bytes_max=2,
        rate_window_s=3,
        connections_max=4,
        connections_per_address_max=5,
    )
    config = GatewayConfig.of(settings)
    assert config.tokens_file == tmp_path / "tokens.json"
    files = config.cert_file, config.key_file, config.client_ca_file
    assert files == (tmp_path / "cert", tmp_path / "key", tmp_path / "ca")
    assert (config.cors_origins, config.metrics_scope) == ({"https://a.example"}, "read")
    assert (config.rate_requests_max, config.rate_bytes_max, config.rate_window_s) == (1, 2, 3)
    assert (config.connections_max, config.connections_per_address_max) == (4, 5)


def test_what_guards_a_gateway_makes_it_no_open_one(path):
    assert GatewayConfig(tokens_file=path).is_open
    create_token(path, "a", ["read"])
    assert not GatewayConfig(tokens_file=path).is_open
    assert not GatewayConfig(token="x").is_open
    assert not GatewayConfig(client_ca_file=path).is_open


def test_a_file_of_tokens_that_is_broken_keeps_the_gateway_from_starting(producer, path):
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(Refuse, match="is no file of tokens"):
        create_app(GatewayConfig(tokens_file=path), producer, catalogue.load(), Metrics())
