"""What is said to a language model, and when again: no socket, and a clock of the test's own."""

import json

import pytest

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.steps import Pause
from streamapp.models.llm import Endpoint
from streamapp.models.llm.breaker import Breaker, Circuit, RetryBudget
from streamapp.models.llm.steps import Call, Heard, Silence, Steps
from streamapp.models.llm.tasks import intent_question, slots_question
from streamapp.models.llm.wire import Mode

QUESTION = intent_question("I want my money back", {"refund": ["money back"], "cancel": []})
GOOD = {"intent": "refund", "confidence": 90}


def said(content, finish="stop", **message):
    body = {
        "model": "m",
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    return Heard(200, json.dumps(body).encode())


def refused(message="json_schema is not supported", status=400):
    return Heard(status, json.dumps({"error": {"message": message}}).encode())


WELL = said(json.dumps(GOOD))


class Talk:
    """Runs steps against a script; time goes on by what they wait, and by ``call_s`` a call."""

    def __init__(self, *, call_s=0.0, breaker=None, budget=None, **endpoint):
        self.now_s = 100.0
        self.call_s = call_s
        self.bodies = []
        self.calls = []
        self.pauses = []
        options = {"model": "m", "retry_s": 30.0} | endpoint
        breaker = breaker or Breaker(now_s=lambda: self.now_s)
        self.steps = Steps(
            Endpoint("http://127.0.0.1:1/v1/", **options),
            breaker,
            budget,
            now_s=lambda: self.now_s,
        )

    def ask(self, *script, question=QUESTION):
        """The outcome; every answer of the script must be asked for."""
        left = list(script)
        steps = self.steps.ask(question)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.now_s += step.seconds
                    step = next(steps)
                    continue
                assert isinstance(step, Call)
                self.calls.append(step)
                self.bodies.append(json.loads(step.body) if step.body else None)
                self.now_s += self.call_s
                step = steps.send(left.pop(0))
        except StopIteration as end:
            assert not left
            return end.value


def test_the_surest_way_to_json_first():
    talk = Talk(tokens_max=99)
    answer = talk.ask(WELL)
    assert (answer.value, answer.mode, answer.attempts) == (GOOD, "json_schema", 1)
    assert (answer.model, answer.tokens_in, answer.tokens_out) == ("m", 7, 2)
    [body] = talk.bodies
    assert body["response_format"]["json_schema"]["schema"] == QUESTION.schema
    assert body["response_format"]["json_schema"]["strict"] is True
    assert (body["model"], body["max_tokens"], body["stream"]) == ("m", 99, False)
    assert body["messages"][1]["content"] == "<message>\nI want my money back\n</message>"


def test_a_refusal_steps_down_and_the_step_is_remembered():
    talk = Talk()
    assert talk.ask(refused(), refused(status=422), WELL).mode == "tool"
    assert [body.get("response_format", {}).get("type") for body in talk.bodies] == [
        "json_schema",
        "json_object",
        None,
    ]
    assert not talk.pauses
    assert talk.steps.mode is Mode.TOOL
    assert talk.ask(WELL).attempts == 1
    assert talk.bodies[-1]["tool_choice"]["function"]["name"] == "intent"


def test_every_way_can_be_answered():
    talk = Talk()
    call = {"function": {"name": "intent", "arguments": json.dumps(GOOD)}}
    assert talk.ask(refused(), refused(), said(None, tool_calls=[call])).value == GOOD
    answer = talk.ask(refused("tools"), said(f"Sure: {json.dumps(GOOD)}"))
    assert (answer.value, answer.mode) == (GOOD, "prompt")
    asked = talk.bodies[-1]
    assert "response_format" not in asked
    assert "tools" not in asked
    assert json.dumps(QUESTION.schema, separators=(",", ":")) in asked["messages"][0]["content"]


def test_a_refusal_of_everything_is_said_and_not_remembered():
    talk = Talk()
    with pytest.raises(Reject, match="no such thing") as error:
        talk.ask(*[refused("no such thing")] * 4)
    assert error.value.code == "llm.refused"
    assert talk.steps.mode is Mode.JSON_SCHEMA
    assert talk.steps.breaker.state is Circuit.CLOSED


def test_a_prompt_that_is_too_long_is_not_tried_in_other_ways():
    body = b'{"error": {"type": "exceed_context_size_error", "message": "too long"}}'
    with pytest.raises(Reject) as error:
        Talk().ask(Heard(400, body))
    assert error.value.code == "llm.too_long"


def test_parameters_that_a_server_does_not_take_are_left_out_for_good():
    talk = Talk()
    why = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert talk.ask(refused(why), refused("temperature must be 1"), WELL).mode == "json_schema"
    talk.ask(WELL)
    for body in talk.bodies[2:]:
        assert "max_tokens" not in body
        assert body["max_completion_tokens"] == 1024
        assert "temperature" not in body


def test_one_that_fails_on_a_way_gets_the_next_one_for_this_question_only():
    talk = Talk()
    assert talk.ask(Heard(500, b"peg-native"), WELL).mode == "json_object"
    assert talk.pauses
    assert talk.steps.mode is Mode.JSON_SCHEMA


@pytest.mark.parametrize(
    "silence",
    [Silence("reset"), Heard(503, b"loading"), Heard(429, b""), Heard(502, b"<html>"),
     Heard(200, b"<html>hello"), Heard(200, b"[]"), Heard(200, b'{"choices": []}'),
     Heard(200, b'{"choices": [{"mess'), Heard(200, b"\xff"), Heard(408, b"")],
)  # fmt: skip
def test_what_is_no_answer_is_asked_again_after_a_while(silence):
    talk = Talk()
    assert talk.ask(silence, silence, WELL).value == GOOD
    assert 0.12 <= talk.pauses[0] <= 0.25
    assert 0.25 <= talk.pauses[1] <= 0.5
    assert talk.steps.retries == 2


@pytest.mark.parametrize("header", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_no_server_silences_us_for_ever(header):
    talk = Talk(retry_s=0)
    with pytest.raises(Retry):
        talk.ask(Heard(429, b"{}", header))
    with pytest.raises(Retry) as error:
        talk.ask()
    assert error.value.code == "llm.throttled"
    talk.now_s += 3600
    assert talk.ask(WELL)


def test_retry_after_holds_for_the_list_of_models_too():
    talk = Talk(model="")
    listed = Heard(200, b'{"data": [{"id": "first"}]}')
    assert talk.ask(Heard(429, b"{}", "7"), listed, WELL)
    assert talk.pauses[0] == 7
    assert talk.steps.breaker.state is Circuit.CLOSED


def test_a_name_of_a_model_is_no_longer_than_a_name():
    body = json.loads(WELL.content) | {"model": "m\n" * 400_000}
    assert len(Talk().ask(Heard(200, json.dumps(body).encode())).model) == 200
    listed = Heard(200, json.dumps({"data": [{"id": "x" * 400_000}]}).encode())
    talk = Talk(model="", retry_s=0)
    with pytest.raises(Refuse, match="lists none"):
        talk.ask(listed)


def test_retry_after_is_kept_by_all_questions():
    talk = Talk()
    assert talk.ask(Heard(429, b"", "7"), WELL)
    assert talk.pauses[0] >= 7
    with pytest.raises(Retry) as error:
        talk.ask(Heard(429, b"slow down", "100"))
    assert error.value.code == "llm.unanswered"
    with pytest.raises(Retry) as error:
        talk.ask()  # nothing is sent
    assert error.value.code == "llm.throttled"
    talk.now_s += 101
    assert talk.ask(WELL)


def test_a_question_ends_in_time():
    talk = Talk(call_s=10, answer_s_max=10, retry_s=25)
    begun_s = talk.now_s
    with pytest.raises(Retry, match="reset") as error:
        talk.ask(*[Silence("reset")] * 3)
    assert error.value.code == "llm.unanswered"
    assert talk.now_s - begun_s <= 35
    assert [call.answer_s_max for call in talk.calls] == [10, 10, 10]


def test_repeats_are_a_share_of_the_questions():
    talk = Talk(breaker=Breaker(10**6), budget=RetryBudget(0.5, 2), retry_s=1e9)
    with pytest.raises(Retry) as error:
        talk.ask(*[Silence("reset")] * 3)
    assert error.value.code == "llm.budget"
    with pytest.raises(Retry):
        talk.ask(Silence("reset"))
    with pytest.raises(Retry):
        talk.ask(*[Silence("reset")] * 2)  # two questions have saved up one


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404])
def test_a_wrong_endpoint_is_refused(status):
    with pytest.raises(Refuse, match="no such key") as error:
        Talk().ask(refused("no such key", status))
    assert error.value.code == "llm.endpoint"
    assert "llm_api_key" in error.value.fix


def test_half_an_object_is_asked_for_once_more_with_the_reason():
    talk = Talk()
    answer = talk.ask(said('{"intent": "ref'), WELL)
    assert (answer.value, answer.attempts, answer.tokens_in) == (GOOD, 2, 14)
    told = talk.bodies[1]["messages"][2:]
    assert told[0] == {"role": "assistant", "content": '{"intent": "ref'}
    assert "no JSON object" in told[1]["content"]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"intent": "murder", "confidence": 0}', "murder"),
        ('{"intent": "refund", "confidence": 7}', "7 is not one of"),
        ('{"intent": "refund"}', "confidence"),
        ('{"intent": "refund", "confidence": 0, "sql": "drop"}', "sql"),
        ("I cannot help with that.", "no JSON object"),
        ("", "no JSON object"),
    ],
)
def test_an_answer_that_the_schema_does_not_take_is_none(content, why):
    talk = Talk()
    with pytest.raises(Reject, match=why) as error:
        talk.ask(said(content), said(content))
    assert error.value.code == "llm.answer"
    assert talk.steps.breaker.state is Circuit.CLOSED  # it answers


def test_an_answer_that_was_cut_off_gets_twice_the_room_once():
    talk = Talk(tokens_max=50)
    cut = said('{"intent": "refu', "length")
    assert talk.ask(cut, WELL).value == GOOD
    assert [body["max_tokens"] for body in talk.bodies] == [50, 100]
    with pytest.raises(Reject) as error:
        talk.ask(cut, cut)
    assert error.value.code == "llm.cut"


def test_what_it_thought_is_no_answer():
    talk = Talk()
    draft = '<think>perhaps {"intent": "cancel", "confidence": 10}</think>'
    answer = talk.ask(said(draft + json.dumps(GOOD)))
    assert answer.value == GOOD
    assert answer.reasoning_chars == len('perhaps {"intent": "cancel", "confidence": 10}')
    assert talk.ask(said(json.dumps(GOOD), reasoning='{"intent": "cancel"}')).value == GOOD


def test_an_answer_that_was_left_in_the_field_for_reasoning():
    assert Talk().ask(said("", reasoning_content=json.dumps(GOOD))).value == GOOD


def test_tags_in_an_answer_are_its_own():
    question = slots_question("x", "Note", {"note": ["string"]}, [], {})
    value = {"slots": {"note": "write <think> before </think>"}, "reply": ""}
    assert Talk().ask(said(json.dumps(value)), question=question).value == value


def test_thinking_is_switched_off_where_it_is_asked_for():
    talk = Talk(no_thinking=True)
    talk.ask(WELL)
    assert talk.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_first_model_that_is_listed_when_none_is_named():
    talk = Talk(model="")
    listed = Heard(200, b'{"data": [{"id": "qwen3"}, {"id": "other"}]}')
    talk.ask(listed, WELL)
    assert (talk.calls[0].method, talk.calls[0].path) == ("GET", "/models")
    assert talk.bodies[1]["model"] == "qwen3"
    talk.ask(WELL)
    with pytest.raises(Refuse, match="lists none"):
        Talk(model="").ask(Heard(200, b'{"data": []}'))


class TestBreaker:
    def breaker(self, **options):
        self.now_s = 0.0
        self.states = []
        return Breaker(3, 10.0, now_s=lambda: self.now_s, on_change=self.states.append, **options)

    def test_it_opens_asks_once_and_closes(self):
        breaker = self.breaker()
        for _ in range(3):
            breaker.admit()
            breaker.failure()
        with pytest.raises(Retry, match=r"10\.0 s"):
            breaker.admit()
        self.now_s = 10.5
        breaker.admit()  # the one that finds out
        with pytest.raises(Retry):
            breaker.admit()
        breaker.success()
        breaker.admit()
        assert self.states == [Circuit.CLOSED, Circuit.OPEN, Circuit.PROBING, Circuit.CLOSED]

    def test_it_is_left_alone_longer_while_it_fails(self):
        breaker = self.breaker()
        waits = []
        for _ in range(3):
            breaker.failure()
        for _ in range(6):
            begun_s = self.now_s
            while True:
                try:
                    breaker.admit()
                except Retry:
                    self.now_s += 1
                    continue
                break
            waits.append(self.now_s - begun_s)
            breaker.failure()
        assert waits == [10, 20, 40, 80, 80, 80]

    def test_failures_must_be_in_a_row(self):
        breaker = self.breaker()
        for _ in range(5):
            breaker.failure()
            breaker.failure()
            breaker.success()
        breaker.admit()

    def test_nobody_waits_for_one_that_never_said_how_it_went(self):
        breaker = self.breaker()
        for _ in range(3):
            breaker.failure()
        self.now_s = 10
        breaker.admit()
        self.now_s = 20
        breaker.admit()

    def test_an_outage_costs_no_calls(self):
        talk = Talk(retry_s=0)
        for _ in range(5):
            with pytest.raises(Retry):
                talk.ask(Silence("away"))
        with pytest.raises(Retry) as error:
            talk.ask()
        assert error.value.code == "llm.circuit"
        talk.now_s += 16
        assert talk.ask(WELL)


@pytest.mark.parametrize(
    ("url", "code"),
    [("", "llm.url"), ("ftp://x", "llm.url"), ("http://", "llm.url"), ("http://u:p@h/v1", "llm.url"),
     ("http://u:p@h/v1?x=1", "llm.url"), ("http://u:p@h:0/v1", "llm.url"), ("u:p@h", "llm.url"),
     ("http://u:p@h:99999/v1", "llm.url"), ("http://h/v1?x=1", "llm.url"), ("http://h:99999/", "llm.url"), ("http://h/a b", "llm.url")],
)  # fmt: skip
def test_urls_that_are_none(url, code):
    with pytest.raises(Refuse) as error:
        Endpoint(url)
    assert error.value.code == code
    assert "@" not in error.value.message


@pytest.mark.parametrize("model", ["m", ""])
@pytest.mark.parametrize("status", [401, 500, 200])
def test_a_key_that_a_server_says_again_is_not_shown(status, model):
    talk = Talk(model=model, api_key="k3y-s3cret", retry_s=0)
    with pytest.raises((Refuse, Retry)) as error:
        talk.ask(refused("x" * 295 + "k3y-s3cret", status))
    assert "k3y" not in error.value.message


def test_a_key_is_not_shown():
    assert "s3cret" not in repr(Endpoint("http://h/v1", api_key="s3cret"))
    with pytest.raises(Refuse, match="printable"):
        Endpoint("http://h/v1", api_key="a\nb")
