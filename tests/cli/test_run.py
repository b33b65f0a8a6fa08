"""``streamapp gateway|worker|store|terminal``."""

import os
import re
import signal
import subprocess
import sys

import pytest


def test_the_gateway_takes_what_send_sends_and_drains(run, clean):
    run("topics", "apply")
    (clean / "a.txt").write_text("".join(f"message {n}\n" for n in range(500)))
    command = [sys.executable, "-m", "streamapp.cli", "gateway", "--gateway-port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        sent = run("send", "a.txt", "--url", url, "--json")
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    assert sent.json["accepted"] == 500
    states = run("topics", "ls", "--json").json
    assert [s["records"] for s in states if s["topic"] == "events.raw"] == [500]


def test_a_gateway_without_its_token_refuses_send(run, clean):
    run("topics", "apply")
    (clean / "a.txt").write_text("hello\n")
    command = [sys.executable, "-m", "streamapp.cli", "gateway", "--gateway-port", "0"]
    with subprocess.Popen(
        [*command, "--token", "s3cret"], stderr=subprocess.PIPE, text=True
    ) as process:
        url = re.search(r"http://\S+", process.stderr.readline())[0]
        refused = run("send", "a.txt", "--url", url)
        taken = run("send", "a.txt", "--url", url, "--token", "s3cret")
        process.terminate()
    assert (refused.code, "refuses this token" in refused.err) == (2, True)
    assert taken.code == 0


@pytest.mark.parametrize(
    ("verb", "flag", "setting"),
    [
        ("worker", "--worker-port", "worker_port"),
        ("store", "--store-port", "store_port"),
        ("terminal", "--terminal-port", "terminal_port"),
    ],
)
def test_the_others_become_faust_with_their_settings(run, monkeypatch, verb, flag, setting):
    became = []
    monkeypatch.setattr("streamapp.compose.exec_faust", lambda *given: became.append(given))
    assert run(verb, flag, "4711", "--log-level", "info").code == 0
    ((module, settings, port),) = became
    assert (module, port, getattr(settings, setting)) == (verb, 4711, 4711)
    assert settings.log_level == "info"
