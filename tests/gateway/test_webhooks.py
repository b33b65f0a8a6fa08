import base64
import hashlib
import hmac
import json
import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from streamapp.cli.app import main
from streamapp.core.clock import now_us
from streamapp.core.errors import Refuse, Retry
from streamapp.core.project import read_secret
from streamapp.core.slice import Record
from streamapp.gateway.sources import declared_sources, project_sources
from streamapp.topics.wire import decode_record

OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in (1, 2))
SECRETS = {"OLD": OLD, "NEW": NEW, "PLAIN": "It's a Secret to Everybody"}
TABLES = {
    "svc": {"kind": "standard", "secrets": ["NEW", "OLD"]},
    "repo": {"kind": "github", "secrets": ["PLAIN"]},
    "pay": {"kind": "stripe", "secrets": ["PLAIN"], "type_prefix": "pay."},
}


@pytest.fixture
async def hooks(start):
    return await start(webhooks=declared_sources(TABLES, SECRETS.__getitem__), token="s3cret")


def signed(body, *, secret=NEW, id_="msg_1", at=None, prefix="webhook"):
    """Headers as the service's own library writes them."""
    at = at or datetime.fromtimestamp(now_us() // 1_000_000, UTC)
    signature = Webhook(secret).sign(id_, at, body.decode())
    sent = str(int(at.timestamp()))
    return {f"{prefix}-id": id_, f"{prefix}-timestamp": sent, f"{prefix}-signature": signature}


def hex_of(secret, data):
    return hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


def github(body, event="push", secret=SECRETS["PLAIN"], **more):
    return {
        "X-GitHub-Event": event, "X-GitHub-Delivery": "d-1",
        "X-Hub-Signature-256": "sha256=" + hex_of(secret, body),
    } | more  # fmt: skip


def stripe(body, secret=SECRETS["PLAIN"], at=None):
    at = now_us() // 1_000_000 if at is None else at
    return {
        "Stripe-Signature": f"t={at},v1={'0' * 64},v1={hex_of(secret, f'{at}.'.encode() + body)},v0=x"
    }


def row(gate):
    _, record = gate.producer.records[-1]
    return decode_record(
        Record(0, 0, record.key, record.value, record.headers), event_bytes_max=1 << 20
    )


BODY = b'{"type": "user.created",  "data": {"email": "a@b.c"}}'


@pytest.mark.parametrize("secret", [NEW, OLD])
@pytest.mark.parametrize("prefix", ["webhook", "svix"])
async def test_standard_webhooks_by_either_secret(hooks, secret, prefix):
    status, answer = await hooks.post(
        "/webhooks/svc", BODY, headers=signed(BODY, secret=secret, prefix=prefix)
    )
    assert (status, answer["status"], answer["id"]) == (200, "received", "msg_1")
    assert hooks.producer.values == [BODY]
    kept = hooks.producer.headers()
    assert (kept["ce_id"], kept["ce_source"], kept["ce_type"]) == (
        "msg_1",
        "/webhooks/svc",
        "user.created",
    )
    assert hooks.producer.records[0][1].key == b"msg_1"


async def test_one_signature_of_several_is_enough(hooks):
    headers = signed(BODY)
    fits = headers["webhook-signature"]
    for given in (f"v1,AAAA {fits}", f"v1a,{fits[3:]} {fits}", f"{fits} v2,x"):
        status, _ = await hooks.post(
            "/webhooks/svc", BODY, headers=headers | {"webhook-signature": given}
        )
        assert status == 200
    for given in (f"v1a,{fits[3:]}", fits[3:], "v1,", "v1", f"V1,{fits[3:]}"):
        status, problem = await hooks.post(
            "/webhooks/svc", BODY, headers=headers | {"webhook-signature": given}
        )
        assert (status, problem["code"]) == (401, "webhook.signature")
    assert len(hooks.producer.records) == 3


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"body": BODY + b" "}, 401, "webhook.signature"),
        ({"webhook-id": "msg_2"}, 401, "webhook.signature"),
        ({"webhook-timestamp": "1"}, 401, "webhook.signature"),
        ({"webhook-signature": "v1,\udcff"}, 401, "webhook.signature"),
        ({"webhook-timestamp": "\udcff"}, 401, "webhook.signature"),
        ({"webhook-id": None}, 400, "webhook.header"),
        ({"webhook-timestamp": None}, 400, "webhook.header"),
        ({"webhook-signature": None}, 400, "webhook.header"),
        ({"webhook-id": "x" * 513}, 400, "webhook.header"),
    ],
    ids=str,
)
async def test_what_was_not_signed_is_not_taken(hooks, change, status, code):
    headers = signed(BODY) | change
    body = headers.pop("body", BODY)
    fields = "".join(f"{k}: {v}\r\n" for k, v in headers.items() if v is not None)
    head = f"POST /webhooks/svc HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    answer = await hooks.raw((head + fields + "\r\n").encode(errors="surrogateescape") + body)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert code.encode() in answer
    assert hooks.producer.records == []
    assert not any(secret[6:].encode() in answer for secret in (OLD, NEW))


@pytest.mark.parametrize(("shift_s", "status"), [(-290, 200), (290, 200), (-310, 401), (310, 401)])
async def test_a_signature_is_good_for_five_minutes(hooks, shift_s, status):
    at = datetime.fromtimestamp(now_us() // 1_000_000, UTC) + timedelta(seconds=shift_s)
    got, answer = await hooks.post("/webhooks/svc", BODY, headers=signed(BODY, at=at))
    assert got == status
    assert answer.get("code") == (None if status == 200 else "webhook.timestamp")
    got, _ = await hooks.post(
        "/webhooks/pay", b'{"id":"e"}', headers=stripe(b'{"id":"e"}', at=int(at.timestamp()))
    )
    assert got == status


@pytest.mark.parametrize("sent", ["1e9", "-1", "9" * 400, "9" * 5000], ids=len)
async def test_a_signed_time_that_is_none(hooks, sent):
    """400 digits are too many for a float, 5,000 for int()."""
    body = b'{"id":"e"}'
    status, problem = await hooks.post("/webhooks/pay", body, headers=stripe(body, at=sent))
    assert (status, problem["code"]) == (400, "webhook.header")


async def test_github_s_event_is_text(hooks):
    """GitHub signs the body only: who has one delivery can send any header beside it."""
    body = b'{"a":1}'
    fields = "".join(f"{k}: {v}\r\n" for k, v in github(body, "pu\udcffsh").items())
    head = "POST /webhooks/repo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 7\r\n"
    answer = await hooks.raw((head + fields + "\r\n").encode(errors="surrogateescape") + body)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"webhook.header" in answer
    assert hooks.producer.records == []


async def test_github(hooks):
    body = b'{"action":"opened","number":1,"sender":{"login":"x"}}'
    status, answer = await hooks.post("/webhooks/repo", body, headers=github(body, "issues"))
    assert (status, answer["id"], answer["event_type"]) == (200, "d-1", "com.github.issues.opened")
    form = b"payload=" + urllib.parse.quote_plus(body).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    status, _ = await hooks.post("/webhooks/repo", form, headers=github(form, **kind))
    assert (status, hooks.producer.values) == (200, [body, body])
    assert hooks.producer.headers()["ce_type"] == "com.github.push.opened"
    for bad in (
        b"payload",
        b"other=1",
        b"payload=1&payload=2",
        b"a=1&" * 20,
        b"\xff=1",
        b"payload=%ff",
    ):
        assert (await hooks.post("/webhooks/repo", bad, headers=github(bad, **kind)))[0] == 400


async def test_github_s_own_example(hooks):
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing"""
    headers = {
        "X-GitHub-Event": "x", "X-GitHub-Delivery": "d",
        "X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
    }  # fmt: skip
    status, problem = await hooks.post("/webhooks/repo", b"Hello, World!", headers=headers)
    assert (status, problem["code"]) == (400, "event.json")  # it is signed, and no JSON


async def test_github_s_ping_is_answered_and_not_kept(hooks):
    body = b'{"zen":"Keep it logically awesome.","hook_id":1}'
    assert (await hooks.post("/webhooks/repo", body, headers=github(body, "ping")))[0] == 200
    wrong = github(body, "ping", secret="other")
    assert (await hooks.post("/webhooks/repo", body, headers=wrong))[0] == 401
    assert hooks.producer.records == []


async def test_stripe(hooks):
    body = b'{"id": "evt_1", "object": "event", "type": "charge.succeeded", "created": 1}'
    status, answer = await hooks.post("/webhooks/pay", body, headers=stripe(body))
    assert (status, answer["id"], answer["event_type"]) == (200, "evt_1", "pay.charge.succeeded")
    assert hooks.producer.values == [body]
    for bad in (
        {"Stripe-Signature": "v1=" + hex_of(SECRETS["PLAIN"], body)},
        stripe(body, "other"),
        {},
    ):
        assert (await hooks.post("/webhooks/pay", body, headers=bad))[0] in {400, 401}
    status, problem = await hooks.post("/webhooks/pay", b"{}", headers=stripe(b"{}"))
    assert (status, problem["code"]) == (400, "event.field")
    assert len(hooks.producer.records) == 1


@pytest.mark.parametrize("body", [b'[{"a": 1}]', b'{"text":{"a":1}}', b'{"time":"noon"}'])
async def test_a_payload_that_is_no_event_is_kept_whole(hooks, body):
    assert (await hooks.post("/webhooks/svc", body, headers=signed(body)))[0] == 200
    assert hooks.producer.values == [b'{"data":' + body + b"}"]
    assert json.loads(row(hooks).payload) == {"data": json.loads(body)}


@pytest.mark.parametrize("body", [b"", b"x", b'{"a":1', b'"\xff"', b"[" * 9_999])
async def test_a_payload_that_is_no_json_is_told(hooks, body):
    status, problem = await hooks.post("/webhooks/repo", body, headers=github(body))
    assert (status, problem["code"].split(".")[0]) == (400, "event")
    assert hooks.producer.records == []


async def test_a_stranger_s_bodies_leave_room_for_everybody_else(start):
    """A body is kept before its signature can be looked at."""
    sources = declared_sources(TABLES, SECRETS.__getitem__)
    gate = await start(webhooks=sources, event_bytes_max=3_000, inflight_bytes_max=8_000)
    for size, status in ((1_900, 401), (2_100, 429), (3_100, 413)):
        body = json.dumps("x" * size).encode()
        headers = signed(body, secret=OLD if status != 401 else "whsec_AAAA")
        assert (await gate.post("/webhooks/svc", body, headers=headers))[0] == status
    body = b'{"a":"%b"}' % (b"x" * 2_900)
    assert (await gate.post("/ingest", body))[0] == 200
    assert gate.gateway.budget.bytes == gate.gateway.budget.events == 0


async def test_an_unknown_source_is_told_nothing(hooks):
    answers = set()
    for name in ("nope", "SVC", "svc%2F", "x" * 300):
        async with hooks.http.post(f"{hooks.url}/webhooks/{name}", data=b"x" * 10) as answer:
            answers.add((answer.status, await answer.text()))
    assert len(answers) == 1
    [(status, text)] = answers
    assert status == 404
    assert "svc" not in text
    async with hooks.http.get(f"{hooks.url}/webhooks/svc") as answer:
        assert answer.status == 405


async def test_a_delivery_is_not_taken_while_the_log_is_silent(hooks):
    hooks.producer.failures.append(Retry("log.silent", "no answer"))
    assert (await hooks.post("/webhooks/svc", BODY, headers=signed(BODY)))[0] == 503
    assert (await hooks.post("/webhooks/svc", BODY, headers=signed(BODY)))[0] == 200


async def test_npm_standardwebhooks(hooks, node):
    script = """
    const {Webhook} = require("standardwebhooks");
    const [url, secret] = process.argv.slice(2);
    const body = JSON.stringify({type: "invoice.paid", data: {text: "é"}});
    const at = new Date(), id = "msg_js";
    fetch(url, {method: "POST", body, headers: {
      "content-type": "application/json", "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
      "webhook-signature": new Webhook(secret).sign(id, at, body),
    }}).then(async (answer) => console.log(answer.status, await answer.text()));
    """
    assert (await node(script, hooks.url + "/webhooks/svc", OLD)).startswith("200 ")
    assert hooks.producer.headers()["ce_type"] == "invoice.paid"


def test_the_project_file_declares_sources(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SVC", NEW)
    (tmp_path / "old").write_text(OLD + "\n")
    (tmp_path / ".env").write_text("DOT=dotted\n")
    (tmp_path / "streamapp.toml").write_text(
        '[webhooks.svc]\nkind = "standard"\nsecrets = ["env:SVC", "file:old"]\n'
        '[webhooks.repo]\nkind = "github"\nsecrets = ["env:DOT"]\ntype_prefix = ""\n'
    )
    sources = project_sources(tmp_path)
    assert sources["svc"].keys == (bytes([2]) * 24, bytes([1]) * 24)
    assert (sources["repo"].keys, sources["repo"].type_prefix) == ((b"dotted",), "")
    assert not [s for s in (NEW, OLD, "dotted", "x02") if s in repr(sources)]
    main(["config", "show", "--json"])
    shown = capsys.readouterr().out
    assert shown.startswith("{")
    assert not [s for s in (NEW, OLD, "dotted") if s in shown]


BAD = {
    "no kind": ('[webhooks.a]\nsecrets = ["env:S"]', "kind"),
    "kind": ('[webhooks.a]\nkind = "gitlab"\nsecrets = ["env:S"]', "gitlab"),
    "unknown": ('[webhooks.a]\nkind = "github"\nsecrets = ["env:S"]\nsecret = "x"', "secret"),
    "none": ('[webhooks.a]\nkind = "github"\nsecrets = []', "names 0 secrets"),
    "written out": ('[webhooks.a]\nkind = "github"\nsecrets = ["hunter2"]', "written out"),
    "no variable": ('[webhooks.a]\nkind = "github"\nsecrets = ["env:NOPE"]', "NOPE"),
    "no file": ('[webhooks.a]\nkind = "github"\nsecrets = ["file:nope"]', "nope"),
    "base64": ('[webhooks.a]\nkind = "standard"\nsecrets = ["env:S"]', "base64"),
    "name": ('[webhooks."a/b"]\nkind = "github"\nsecrets = ["env:S"]', "URL"),
    "no table": ("webhooks = 1", "webhooks"),
    "flat": ('[webhooks]\nkind = "github"', "webhooks"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_declaration_that_does_not_do_is_refused_without_its_secret(tmp_path, monkeypatch, name):
    text, said = BAD[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("S", "hunter2!")
    (tmp_path / "streamapp.toml").write_text(text)
    with pytest.raises(Refuse) as refused:
        project_sources(tmp_path)
    assert said in refused.value.message
    assert "hunter2" not in str(refused.value)
    assert refused.value.fix


async def test_a_source_for_a_topic_that_takes_no_events_is_refused(start):
    tables = {"a": {"kind": "github", "secrets": ["PLAIN"], "topic": "events.enriched"}}
    with pytest.raises(Refuse, match=r"events\.enriched"):
        await start(webhooks=declared_sources(tables, SECRETS.__getitem__))


def test_a_secret_never_stands_in_a_message(tmp_path):
    for reference in ("hunter2", "pass:hunter2", "whsec_hunter2", ""):
        with pytest.raises(Refuse) as refused:
            read_secret(reference, tmp_path, environ={})
        assert "hunter2" not in str(refused.value)
