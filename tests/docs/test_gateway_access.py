"""The section "Access" of docs/gateway.md: its commands run, its tables are the code's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import page

from streamapp.core.config import Settings, describe, env_name
from streamapp.core.scopes import Grant
from streamapp.gateway import GatewayConfig, listen, rates
from streamapp.gateway.cors import origins_of
from streamapp.gateway.scopes import RULES

SECTION = page("gateway").section("Access")
BIN = Path(sys.executable).parent


@pytest.fixture
def env(tmp_path):
    ours = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
    return ours | {
        "PATH": f"{BIN}:{ours['PATH']}",
        "STREAMAPP_HOME": str(tmp_path / "home"),
        "STREAMAPP_GATEWAY_PORT": "0",
    }


@pytest.fixture
def url(env, tmp_path):
    """A gateway as a user runs it."""
    subprocess.run(["streamapp", "topics", "apply"], env=env, check=True, capture_output=True)
    with subprocess.Popen(
        ["streamapp", "gateway"], env=env, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            said = process.stdout.readline()
            yield re.search(r"http://\S+:\d+", said)[0]
        finally:
            process.terminate()


def test_the_commands_do_what_the_page_says(env, url, tmp_path):
    [console] = re.findall(r"^```console\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^\$ (.*)$", console, re.MULTILINE)
    told = [line for line in console.splitlines() if not line.startswith("$")]
    at = url.removeprefix("http://")
    waits = "until [ $(curl -s -o /dev/null -w '%{http_code}' $URL/topics) = 401 ]; do :; done"
    script = [commands[0], waits.replace("$URL", url)]
    script += [f"{command}; echo; echo ---" for command in commands[1:]]
    done = subprocess.run(
        ["bash", "-ec", "\n".join(script).replace("localhost:9382", at).replace("curl", "curl -s")],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sent, topics, listed, revoked, _ = (part.strip() for part in done.stdout.split("---"))
    assert json.loads(sent)["status"] == "received"
    assert [topics] == told
    assert re.search(r"^shop .*produce:events\.\*", listed, re.MULTILINE)
    assert revoked == "revoked  shop"


def test_every_scope_of_the_table_is_one_and_all_are_in_it():
    named = set(re.findall(r"^\| `([a-zA-Z:]+)` \|", SECTION, re.MULTILINE))
    assert named == {"produce:TOPIC", "consume:TOPIC", "read", "admin"}
    for scope in named:
        Grant.of("t", [scope])
    used = {takes.verb for methods in RULES.values() for takes in methods.values()}
    assert {scope.partition(":")[0] for scope in named} <= {str(verb) for verb in used}


def test_the_settings_of_the_page_exist_and_the_numbers_are_the_code_s():
    known = {env_name(field.name): field.default for field in describe()}
    named = set(re.findall(r"STREAMAPP_\w+[A-Z]", SECTION)) - {"STREAMAPP_TOKEN"}
    assert {name for name in named if name not in known} == set()
    config = GatewayConfig.of(Settings())
    options = listen.connection_options(config)
    for text in (
        f"`connections_max` {config.connections_max:,}",
        f"| {config.headers_s_max:g} s from the first byte |",
        f"| {config.keepalive_s:g} s | hung up on |",
        f"| {options['max_headers']}, {options['max_field_size']:,} |",
        f"| {config.body_s_max:g} s, `body_bytes_max` {config.body_bytes_max >> 20} MiB",
        f"| reading the answer | {config.answer_s_max:g} s |",
        f"`event_bytes_max` {config.event_bytes_max >> 20} MiB, {config.request_events_max:,}",
        f"`inflight_events_max` {config.inflight_events_max:,}",
    ):
        assert text in SECTION, text


def test_the_fields_of_the_page_are_what_answers_say():
    now_s = [0.0]
    limits = rates.Rates(
        GatewayConfig(rate_requests_max=100, rate_bytes_max=1_000_000, rate_window_s=10),
        lambda: now_s[0],
    )
    meters = [limits.take("", "192.0.2.1") for _ in range(58)]
    meters[0].count(1_000_000 - 123_456)
    now_s[0] = 3.0
    said = "".join(f"{name}: {value}\n" for name, value in meters[0].headers().items())
    assert f"```\n{said}```" in SECTION


def test_the_origins_of_the_page_are_some():
    [text] = re.findall(r"STREAMAPP_CORS_ORIGINS=(\S+?)`", SECTION)
    assert len(origins_of(text)) == 2
