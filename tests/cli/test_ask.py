"""``streamapp ask``, and a language model tried by hand."""

import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from llm_server import LlmServer

from streamapp.cli.up import PROCESSES, processes, supervisor, wanted
from streamapp.core.config import load
from streamapp.screen.summary import addresses


@pytest.fixture
def llm():
    server = LlmServer().start()
    yield server
    server.stop()


def test_a_model_is_tried(run, clean, llm):
    tried = run("ask", "try", "I want a refund", "--llm-base-url", llm.url)
    assert tried.code == 0, tried.err
    assert "refund" in tried.out
    assert "json_schema" in tried.out
    said = run("ask", "try", "I want a refund", "--llm-base-url", llm.url, "--json").json
    assert said.pop("seconds") >= 0
    assert said == {
        "intent": "refund",
        "confidence": 70,
        "model": "tests",
        "mode": "json_schema",
        "calls": 1,
        "tokens_in": 10,
        "tokens_out": 3,
        "reasoning_chars": 0,
    }
    assert len(llm.calls) == 2  # kept answers are not looked at
    labels = llm.calls[0]["messages"][0]["content"]
    assert "- refund: I want my money back; quero o reembolso" in labels


@pytest.mark.parametrize(
    ("variable", "name"), [("LLM_BASE_URL", "alias"), ("STREAMAPP_LLM_BASE_URL", "ours")]
)
def test_it_is_declared_by_either_name(run, clean, llm, monkeypatch, variable, name):
    monkeypatch.setenv("LLM_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv(variable, llm.url)
    assert run("ask", "try", "refund").code == 0
    shown = run("config", "show", "--json").out
    assert llm.url in shown


def test_without_a_model_it_says_what_to_set(run, clean):
    for arguments in (["ask"], ["ask", "try", "x"]):
        failed = run(*arguments)
        assert failed.code == 2
        assert "no language model is declared" in failed.err
        assert "LLM_BASE_URL" in failed.err


@pytest.mark.parametrize(
    ("act", "code", "why"),
    [
        (401, 2, "llm_api_key"),
        ({"content": "no"}, 65, "no JSON object"),
        ((400, {}, {"error": {"code": "context_length_exceeded"}}), 65, "ask about less"),
    ],
)
def test_a_model_that_does_not_answer_is_told_in_two_lines(run, clean, llm, act, code, why):
    llm.always = act
    failed = run("ask", "try", "x", "--llm-base-url", llm.url)
    assert (failed.code, why in failed.err) == (code, True)
    assert "Traceback" not in failed.err


def test_a_workflow_that_asks_nothing_is_refused(run, clean, llm, monkeypatch):
    monkeypatch.setenv("LLM_BASE_URL", llm.url)
    folder = clean / "topics"
    run("init", "shop")
    workflow = clean / "shop" / "topics" / "workflow.toml"
    text = workflow.read_text()
    assert "ask_below = 0.0" in text
    workflow.write_text(text.replace("ask_below", "# ask_below"))
    failed = run("ask", "--topics-dir", str(workflow.parent))
    assert (failed.code, "set ask_below = 0" in failed.err) == (2, True)
    assert not folder.exists()


def test_up_runs_it_where_a_model_is_declared(clean):
    settings = load()[0]
    assert wanted(settings) == ()
    settings = replace(settings, llm_base_url="http://127.0.0.1:9/v1")
    assert wanted(settings) == ("ask",)
    assert processes(settings, ("ask",)) == (*PROCESSES, "ask")
    assert tuple(supervisor(settings, extras=("ask",)).children) == (*PROCESSES, "ask")
    assert addresses(settings, ("ask",))["ask"].endswith(f":{settings.ask_port}")


def test_topics_are_made_where_a_model_is_declared(run, clean, llm):
    run("topics", "apply")
    names = {one["topic"] for one in run("topics", "ls", "--json").json}
    assert not names & {"events.ask", "events.answers"}
    command = [sys.executable, "-m", "streamapp.cli", "ask", "--llm-base-url", llm.url]
    command += ["--ask-port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert said == f"asking {llm.url} about events.ask\n"
