"""An event is filled in from what somebody says; a model that fails is the client's 502 or 503."""

import json

import pytest
from llm_server import LlmServer

from streamapp.gateway.chat.slots import Form, form_of
from streamapp.gateway.schemas.shape import Shape
from streamapp.models.llm import Endpoint

ORDERS = [
    {"type": "Order", "message": "x", "sku": "p1", "count": 2, "gift": True, "lines": [1]},
    {"type": "Order", "message": "x", "sku": "p2", "count": 3},
]
VISITS = [{"type": "Visit", "page": "/"}]


@pytest.fixture
def llm():
    server = LlmServer().start()
    yield server
    server.stop()


@pytest.fixture
def chatting(start, llm):
    async def begin(*, learn=(*ORDERS, *VISITS), **config):
        endpoint = Endpoint(llm.url, retry_s=0, answer_s_max=5)
        gate = await start(**{"llm": endpoint, **config})
        if learn:
            status, _ = await gate.post("/v1/events", list(learn))
            assert status == 200
            gate.producer.records.clear()
        return gate

    return begin


def test_slots_are_plain_fields_at_the_top_that_are_the_types_own():
    shape = Shape(0, 0)
    for event in [*ORDERS, {"type": "Order", "count": 1.5, "sku": None, "a.b": "x"}]:
        shape.examine(event, keep_sample=False)
    form = form_of("Order", shape)
    assert form.slots == {
        "count": ("integer", "number"),
        "sku": ("string",),
        "a.b": ("string",),
        "gift": ("boolean",),
    }
    assert form.required == ("count", "sku")
    assert form.missing({"sku": "p1", "count": None}) == ["count"]
    assert form.fits("count", 2)
    assert form.fits("gift", value=True)
    assert not form.fits("count", value=True)
    assert not form.fits("gift", 1)
    assert not form.fits("other", "x")


async def test_slots_fill_message_by_message_and_the_event_is_sent(chatting):
    gate = await chatting()
    status, answer = await gate.post("/api/chat", {"message": "an Order of sku=p7"})
    assert (status, answer) == (
        200,
        {
            "type": "Order",
            "slots": {"sku": "p7"},
            "missing": ["count"],
            "complete": False,
            "reply": "Anything else?",
            "model": "tests",
            "event": None,
        },
    )
    asked = {
        "message": "count=4 of them",
        "type": answer["type"],
        "slots": answer["slots"],
        "conversation_id": "c9",
        "submit": True,
    }
    assert not gate.producer.records
    status, answer = await gate.post("/api/chat", asked)
    assert (status, answer["complete"], answer["missing"]) == (200, True, [])
    assert answer["slots"] == {"sku": "p7", "count": 4}
    [(address, record)] = gate.producer.records
    assert (address.topic, record.key) == ("events.raw", b"c9")
    event = json.loads(record.value)
    assert event == {
        "sku": "p7",
        "count": 4,
        "type": "Order",
        "message": "count=4 of them",
        "conversation_id": "c9",
    }
    sent = {"topic": "events.raw", "partition": 0, "offset": address.offset}
    assert {name: answer["event"][name] for name in sent} == sent
    assert dict(record.headers)["ce_source"] == b"/api/chat"


async def test_what_is_not_complete_is_not_sent(chatting):
    gate = await chatting()
    asked = {"message": "sku=p7", "type": "Order", "submit": True}
    status, answer = await gate.post("/api/chat", asked)
    assert (status, answer["event"], gate.producer.records) == (200, None, [])


async def test_a_correction_replaces_and_silence_does_not(chatting):
    gate = await chatting()
    slots = {"sku": "p1", "count": 1}
    status, answer = await gate.post(
        "/api/chat", {"message": "no, count=5", "type": "Order", "slots": slots}
    )
    assert (status, answer["slots"]) == (200, {"sku": "p1", "count": 5})


@pytest.mark.parametrize(
    ("said", "slots", "reply"),
    [
        ({"slots": {"count": 4}, "reply": "Thanks"}, {"sku": "p1", "count": 4}, "Thanks"),
        ({"slots": {}, "reply": "How many?"}, {"sku": "p1"}, "How many?"),
        ({"slots": {"count": 4.0}, "reply": "."}, {"sku": "p1", "count": 4}, "."),
        ({"slots": {"sku": "p1"}, "reply": "How many?"}, {"sku": "p1"}, "How many?"),
        ({"slots": {"sku": 9, "count": 4}, "reply": "."}, {"sku": "p1", "count": 4}, "."),
        ({"slots": {"colour": "red", "count": 4}}, {"sku": "p1", "count": 4}, ""),
        ({"slots": {"sku": None}}, {"sku": "p1"}, "Please tell: count."),
    ],
)
async def test_what_a_model_leaves_out_or_says_twice_is_no_error(chatting, llm, said, slots, reply):
    """A model without a grammar gives the slots that it found, and some that it was told."""
    gate = await chatting()
    llm.always = {"content": json.dumps(said)}
    asked = {"message": "what?", "type": "Order", "slots": {"sku": "p1"}}
    status, answer = await gate.post("/api/chat", asked)
    assert (status, answer["slots"], answer["reply"]) == (200, slots, reply)
    assert answer["missing"] == [name for name in ("count",) if name not in slots]
    assert len(llm.calls) == 1


async def test_a_slot_of_a_wrong_type_is_asked_for_again(chatting, llm):
    gate = await chatting()
    llm.script = [{"content": '{"slots": {"count": "four"}, "reply": "."}'}]
    asked = {"message": "count=4", "type": "Order"}
    status, answer = await gate.post("/api/chat", asked)
    assert (status, answer["slots"], len(llm.calls)) == (200, {"count": 4}, 2)


async def test_the_model_is_told_the_slots_and_what_is_known(chatting, llm):
    gate = await chatting()
    await gate.post("/api/chat", {"message": "hi", "type": "Order", "slots": {"sku": "p1"}})
    [call] = llm.calls
    assert "Known already: sku = 'p1'." in call["messages"][0]["content"]
    schema = call["response_format"]["json_schema"]["schema"]["properties"]["slots"]
    assert schema["properties"]["count"] == {"type": ["integer", "null"]}
    assert "lines" not in schema["properties"]


async def test_a_message_that_tells_of_nothing_known(chatting):
    gate = await chatting()
    status, answer = await gate.post("/api/chat", {"message": "good morning"})
    assert (status, answer["type"], answer["complete"], answer["slots"]) == (200, None, False, {})


async def test_the_topics_rules_hold(chatting):
    """What is sent goes through what every event goes through."""
    gate = await chatting(event_bytes_max=100)
    asked = {"message": "x" * 120, "type": "Visit", "slots": {"page": "/a"}, "submit": True}
    gate.producer.records.clear()
    status, answer = await gate.post("/api/chat", asked)
    assert (status, answer["code"]) == (413, "event.too_large")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "chat.json"),
        ({"message": ""}, "chat.json"),
        ({"message": "x" * 4001}, "chat.json"),
        ({"message": "x", "slots": {"sku": ["a"]}}, "chat.json"),
        ({"message": "x", "sql": "drop"}, "chat.json"),
        (b"[", "chat.json"),
        (b"\xff", "chat.json"),
        ({"message": "x", "type": "Order", "slots": {"sku": 7}}, "chat.slot"),
        ({"message": "x", "type": "Order", "slots": {"other": "a"}}, "chat.slot"),
    ],
)
async def test_bad_questions(chatting, llm, body, code):
    gate = await chatting()
    status, answer = await gate.post("/api/chat", body)
    assert (status, answer["code"]) == (400, code)
    assert not llm.calls


async def test_a_type_that_nobody_saw(chatting, llm):
    gate = await chatting()
    status, answer = await gate.post("/api/chat", {"message": "x", "type": "Nothing"})
    assert (status, answer["code"]) == (404, "schema.unknown")


async def test_nothing_was_learned(chatting):
    gate = await chatting(learn=())
    status, answer = await gate.post("/api/chat", {"message": "x"})
    assert (status, answer["code"]) == (404, "schema.none")


async def test_no_model_is_declared(chatting):
    gate = await chatting(llm=None)
    status, answer = await gate.post("/api/chat", {"message": "x"})
    assert (status, answer["code"]) == (404, "llm.none")


@pytest.mark.parametrize(
    ("act", "status", "code"),
    [
        (500, 503, "llm.unanswered"),
        ("reset", 503, "llm.unanswered"),
        (401, 503, "llm.endpoint"),
        ({"content": '{"type": "Ord'}, 502, "llm.answer"),
    ],
)
async def test_a_model_that_fails(chatting, llm, caplog, act, status, code):
    gate = await chatting()
    llm.always = act
    async with gate.http.post(f"{gate.url}/api/chat", json={"message": "x"}) as answer:
        problem = await answer.json(content_type=None)
        assert (answer.status, problem["code"]) == (status, code)
        assert ("Retry-After" in answer.headers) == (status == 503)
    told = [one.getMessage() for one in caplog.records if "/api/chat" in one.getMessage()]
    assert len(told) == 1
    assert code in told[0]
    assert llm.url not in json.dumps(problem)
    status, _ = await gate.post("/ingest", {"message": "events flow"})
    assert status == 200


async def test_a_token_that_may_not_produce(start, llm):
    gate = await start(llm=Endpoint(llm.url), token="s3cret")
    status, _ = await gate.post("/api/chat", {"message": "x"})
    assert status == 401


@pytest.mark.parametrize(
    ("said", "taken"),
    [(2.0, 2), (2, 2), (2.5, None), (1e300, None), (-(2.0**53), -(2**53)), (True, None), ("2", None), ([2], None)],
)  # fmt: skip
def test_a_whole_number_is_one_that_a_model_said_and_none_that_was_rounded(said, taken):
    form = Form("Order", {"count": ("integer",)}, ("count",))
    assert form.taken({"count": said}).get("count") == taken


def test_a_text_longer_than_any_message_is_not_taken():
    form = Form("Order", {"sku": ("string",)}, ("sku",))
    assert form.taken({"sku": "x" * 4000}) == {"sku": "x" * 4000}
    assert form.taken({"sku": "x" * 4001}) == {}
