"""A language model is asked over HTTP: llama.cpp's own server, and one of ours that misbehaves."""

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest
from llm_server import LlmServer, llama, tiny_gguf

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.core.settings import Settings
from streamapp.models import Registry
from streamapp.models.llm import Answer, Cache, Chat, Endpoint, Llm
from streamapp.models.llm.breaker import Breaker
from streamapp.models.llm.tasks import (
    choice_question,
    intent_question,
    slots_question,
    type_question,
)
from streamapp.plugin.testing import HashModels

LABELS = {"refund": ["money back"], "cancel": []}


def question(text="a refund please"):
    return intent_question(text, LABELS)


@pytest.fixture
def server():
    server = LlmServer().start()
    yield server
    server.stop()


@pytest.fixture
async def asking(server, tmp_path):
    """Makes clients of the server; they are closed."""
    made = []

    def make(*, cache=False, breaker=None, **options):
        options = {"retry_s": 0, "answer_s_max": 20} | options
        kept = Cache(tmp_path / "llm" / "answers.sqlite", 100) if cache else None
        llm = Llm(Endpoint(server.url, **options), Metrics(), kept, breaker=breaker)
        made.append(llm)
        return llm

    yield make
    for llm in made:
        await llm.close()


def metric(llm, name, *labels):
    """A metric's value in the exposition, as a scraper reads it."""
    wanted = f"streamapp_{name}" + (f'{{{labels[0]}="{labels[1]}"}}' if labels else "")
    for line in llm._metrics.text().decode().splitlines():
        if line.startswith(f"{wanted} "):
            return float(line.rpartition(" ")[2])
    return 0.0


async def test_a_question_is_answered(server, asking):
    llm = asking(api_key="s3cret", model="mine")
    answer = await llm.ask(question())
    assert answer.value == {"intent": "refund", "confidence": 70}
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert server.calls[0]["model"] == "mine"
    assert metric(llm, "llm_questions_total", "outcome", "answered") == 1
    assert metric(llm, "llm_tokens_total", "direction", "in") == 10
    assert metric(llm, "llm_answer_duration_seconds_count") == 1


@pytest.mark.parametrize("mode", ["json_schema", "json_object", "tool", "prompt"])
async def test_the_way_that_a_server_has_is_found_and_remembered(server, asking, mode):
    server.modes = {mode}
    llm = asking()
    first = await llm.ask(question())
    assert (first.mode, first.value["intent"]) == (mode, "refund")
    assert (await llm.ask(question("cancel it"))).attempts == 1


async def test_the_same_question_is_asked_once_at_a_time(server, asking):
    server.answer_s = 0.3
    llm = asking()
    answers = await asyncio.gather(*(llm.ask(question(f"a  refund{' ' * n}")) for n in range(20)))
    assert len(server.calls) == 1
    assert {answer.value["intent"] for answer in answers} == {"refund"}
    assert metric(llm, "llm_questions_total", "outcome", "shared") == 19


async def test_one_caller_that_goes_away_takes_it_from_nobody(server, asking):
    server.answer_s = 0.3
    llm = asking()
    first, second = (asyncio.create_task(llm.ask(question())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).value["intent"] == "refund"
    assert len(server.calls) == 1


async def test_no_more_calls_at_once_than_declared(server, asking):
    server.answer_s = 0.05
    llm = asking(calls_max=3)
    await asyncio.gather(*(llm.ask(question(f"refund {n}")) for n in range(12)))
    assert len(server.calls) == 12
    assert server.busy_max == 3


async def test_no_more_wait_than_declared(server, asking):
    server.answer_s = 0.1
    llm = asking(calls_max=1, waiting_max=2)
    outcomes = await asyncio.gather(
        *(llm.ask(question(f"refund {n}")) for n in range(6)), return_exceptions=True
    )
    assert [type(one) for one in outcomes] == [*[Answer] * 3, *[Retry] * 3]
    assert {one.code for one in outcomes[3:]} == {"llm.busy"}


async def test_answers_are_kept_across_processes(server, asking):
    llm = asking(cache=True)
    await llm.ask(question())
    await llm.close()
    other = asking(cache=True)
    answer = await other.ask(question())
    assert (answer.value["intent"], answer.cached, len(server.calls)) == ("refund", True, 1)
    assert metric(other, "llm_questions_total", "outcome", "cached") == 1
    server.stop()
    assert (await other.ask(question())).cached


async def test_what_failed_is_not_kept(server, asking):
    llm = asking(cache=True)
    server.script = [{"content": "no"}, {"content": "no"}]
    with pytest.raises(Reject):
        await llm.ask(question())
    assert (await llm.ask(question())).cached is False


#: What a server does, and how a question ends that is not asked again.
MISBEHAVIOURS = {
    "hangs": ("hang", "llm.unanswered"),
    "resets": ("reset", "llm.unanswered"),
    "half a body": ("cut", "llm.unanswered"),
    "garbage": (b"\xff\xfe<html>", "llm.unanswered"),
    "other JSON": (b'{"ok": true}', "llm.unanswered"),
    "500": (500, "llm.unanswered"),
    "429": ((429, {"Retry-After": "3600"}, {}), "llm.unanswered"),
    "half a JSON": ({"content": '{"intent": "ref'}, "llm.answer"),
    "a refusal": ({"content": "I cannot do that"}, "llm.answer"),
    "an endless body": (b" " * (2 << 20), "llm.unanswered"),
    "401": (401, "llm.endpoint"),
    "a redirect": ((302, {"Location": "http://127.0.0.1:1/"}, {}), "llm.endpoint"),
}


@pytest.mark.parametrize(("act", "code"), MISBEHAVIOURS.values(), ids=MISBEHAVIOURS)
async def test_every_misbehaviour_ends_in_an_error_of_ours(server, asking, act, code):
    server.always = act
    llm = asking(answer_s_max=0.5 if act == "hang" else 20)
    with pytest.raises((Retry, Reject, Refuse)) as error:
        await llm.ask(question())
    assert error.value.code == code
    server.let.set()
    server.always = None
    if act != MISBEHAVIOURS["429"][0]:
        assert (await llm.ask(question())).value["intent"] == "refund"


@pytest.mark.parametrize(
    "act", ["reset", "cut", b"garbage", 500, 503, (429, {"Retry-After": "0"}, {})]
)
async def test_one_misbehaviour_is_passed_over(server, asking, act):
    server.script = [act]
    llm = asking(retry_s=30)
    assert (await llm.ask(question())).value["intent"] == "refund"
    assert len(server.calls) == 2


async def test_a_server_that_is_away_is_left_alone_and_found_again(server, asking):
    now_s = 0.0
    llm = asking(breaker=Breaker(3, 10, now_s=lambda: now_s))
    server.stop()
    for n in range(3):
        with pytest.raises(Retry, match="connect"):
            await llm.ask(question(str(n)))
    with pytest.raises(Retry) as error:
        await llm.ask(question())
    assert error.value.code == "llm.circuit"
    assert metric(llm, "llm_questions_total", "outcome", "circuit") == 1
    server.start()
    now_s = 11.0
    assert (await llm.ask(question())).value["intent"] == "refund"


async def test_who_sees_it_fail_hears_why_it_is_left_alone(server, asking):
    llm = asking(retry_s=30, breaker=Breaker(2, 60))
    server.stop()
    with pytest.raises(Retry, match="connect.*; the language model failed 2 times") as error:
        await llm.ask(question())
    assert error.value.code == "llm.circuit"
    assert "ask try" not in error.value.fix  # that may be where it is read


async def test_the_circuit_is_a_metric(server, asking):
    llm = asking()
    server.always = 500
    for n in range(5):
        with pytest.raises(Retry):
            await llm.ask(question(str(n)))
    assert metric(llm, "llm_circuit_state") == 2
    assert metric(llm, "llm_calls_total", "outcome", "5xx") == 5


def test_a_program_without_an_event_loop(server):
    with Chat(lambda: Llm(Endpoint(server.url), Metrics())) as chat, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(chat.ask, [question(f"refund {n}") for n in range(8)]))
    assert {answer.value["intent"] for answer in answers} == {"refund"}
    chat.close()


class TestDeclared:
    """A model with a manifest, as ``models.chat(NAME)`` gives it."""

    @pytest.fixture
    def folder(self, tmp_path):
        place = tmp_path / "models" / "chat" / "local" / "1"
        place.mkdir(parents=True)
        lines = [
            'task = "chat"', 'name = "local"', "version = 1", 'about = "any"', 'licence = "MIT"',
            'upstream = "none"', "tokens_max = 4096", "[remote]", 'url = "env:TESTS_URL"',
            'token = "env:TESTS_KEY"', 'model = "mine"', "timeout_s = 5", "attempts = 1",
        ]  # fmt: skip
        (place / "manifest.toml").write_text("\n".join(lines))
        (tmp_path / "models" / "routes.toml").write_text('[defaults]\nchat = "chat/local"\n')
        return tmp_path / "models"

    def test_it_is_asked(self, server, folder, tmp_path):
        held = {"env:TESTS_URL": server.url, "env:TESTS_KEY": "s3cret"}
        registry = Registry(folder, tmp_path / "cache", secret=held.__getitem__)
        chat = registry.chat()
        assert chat is registry.chat("chat/local@1")
        assert chat.ask(question()).value["intent"] == "refund"
        assert server.calls[0]["model"] == "mine"
        assert server.headers[0]["Authorization"] == "Bearer s3cret"
        server.always = 500
        with pytest.raises(Retry):
            chat.ask(question("again"))
        assert len(server.calls) == 2
        registry.close()

    def test_what_is_no_chat_is_refused(self, folder, tmp_path):
        path = folder / "chat" / "local" / "1" / "manifest.toml"
        path.write_text(path.read_text().partition("[remote]")[0])
        with pytest.raises(Refuse):
            Registry(folder, tmp_path / "cache").chat()
        with pytest.raises(Refuse, match="no chat is called"):
            HashModels().chat()


class TestCache:
    answer = Answer(value={"a": [1, None]}, model="m", mode="tool", tokens_in=3)

    def test_it_is_bounded_by_what_was_used_last(self, tmp_path, monkeypatch):
        now = iter(range(10**6))
        monkeypatch.setattr("streamapp.models.llm.cache.now_us", lambda: next(now) * 10**10)
        cache = Cache(tmp_path / "a.sqlite", 10)
        for n in range(12):
            cache.put(str(n), self.answer)
            cache.get("0")
        cache.close()
        cache = Cache(tmp_path / "a.sqlite", 10)
        assert [n for n in range(12) if cache.get(str(n))] == [0, *range(3, 12)]
        cache.close()

    def test_a_file_that_is_no_database_costs_answers_and_nothing_else(self, tmp_path, caplog):
        (tmp_path / "a.sqlite").write_bytes(b"no database" * 100)
        cache = Cache(tmp_path / "a.sqlite", 10)
        cache.put("k", self.answer)
        assert cache.get("k") is None
        assert "are not kept" in caplog.text

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        cache = Cache(tmp_path / "file" / "a.sqlite", 10)
        cache.put("k", self.answer)
        assert cache.get("k") is None

    def test_a_locked_file_is_waited_for_and_then_done_without(self, tmp_path):
        cache = Cache(tmp_path / "a.sqlite", 10)
        cache.put("k", self.answer)
        holder = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        cache.put("l", self.answer)
        holder.execute("ROLLBACK")
        holder.close()
        assert cache.get("l") is None
        assert cache.get("k").cached
        cache.close()

    def test_none_are_kept_when_none_are_wanted(self, tmp_path):
        cache = Cache(tmp_path / "a.sqlite", 0)
        cache.put("k", self.answer)
        assert cache.get("k") is None
        assert not (tmp_path / "a.sqlite").exists()

    def test_another_versions_answers_are_none(self, tmp_path):
        cache = Cache(tmp_path / "a.sqlite", 10)
        cache.put("k", self.answer)
        with sqlite3.connect(tmp_path / "a.sqlite") as other:
            other.execute("UPDATE answers SET value = '[]'")
        other.close()
        assert cache.get("k") is None


def test_settings_declare_it(tmp_path):
    assert Endpoint.of(Settings()) is None
    endpoint = Endpoint.of(
        Settings(llm_base_url="http://h:1/v1/", llm_model="m", llm_thinking="off", llm_retry_s=7)
    )
    assert (endpoint.base_url, endpoint.model) == ("http://h:1/v1", "m")
    assert (endpoint.no_thinking, endpoint.retry_s) == (True, 7)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("xllamacpp", reason="llama.cpp's server is not installed: xllamacpp")
    pytest.importorskip("gguf", reason="weights are made with gguf, which is not installed")
    path = tmp_path_factory.mktemp("llama") / "tiny.gguf"
    tiny_gguf(path)
    return path


@pytest.fixture(scope="module")
def url(weights):
    server, url = llama(weights)
    yield url
    del server


class TestLlamaCpp:
    """llama.cpp's server in this process, on random weights: what it says has no sense, but form."""

    @pytest.fixture
    async def llm(self, url):
        async with Llm(Endpoint(url, tokens_max=300, answer_s_max=60), Metrics()) as llm:
            yield llm

    @pytest.mark.parametrize(
        "asked",
        [question(), type_question({"total": "number"}), choice_question("x", {"Order": ["n"]})],
        ids=lambda one: one.name,
    )
    async def test_every_question_is_answered_by_its_schema(self, llm, asked):
        answer = await llm.ask(asked)
        assert asked.wrong(answer.value) == ""
        assert answer.mode == "json_schema"
        assert answer.tokens_in > 50
        assert answer.tokens_out > 0

    async def test_a_failure_of_its_own_ends_in_an_error_of_ours(self, url):
        """In free text random weights write what its own parser does not take: 500."""
        asked = slots_question("2", "Order", {"n": ["integer"]}, ["n"], {})
        async with Llm(Endpoint(url, tokens_max=60, retry_s=5), Metrics()) as llm:
            with pytest.raises((Retry, Reject)) as error:
                await llm.ask(asked)
        assert error.value.code in {"llm.cut", "llm.answer", "llm.unanswered"}

    async def test_more_than_it_can_read_is_said(self, llm):
        asked = question()
        long = type(asked)("intent", 1, asked.system, "x " * 9000, asked.schema)
        with pytest.raises(Reject, match="context") as error:
            await llm.ask(long)
        assert error.value.code == "llm.too_long"

    async def test_one_token_is_too_few_and_two_as_well(self, url):
        async with Llm(Endpoint(url, tokens_max=1), Metrics()) as llm:
            with pytest.raises(Reject) as error:
                await llm.ask(question())
        assert error.value.code == "llm.cut"

    async def test_it_goes_while_it_is_asked(self, weights):
        server, url = llama(weights)
        async with Llm(Endpoint(url, retry_s=0), Metrics()) as llm:
            await llm.ask(question())
            del server
            with pytest.raises(Retry):
                await llm.ask(question("another refund"))
