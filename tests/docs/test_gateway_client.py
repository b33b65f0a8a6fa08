"""What docs/gateway.md shows of the client runs, and what it says is what the code has."""

import re
import subprocess
import sys

import pytest
from gateway_thread import GatewayThread
from pages import page

from streamapp.client import AsyncClient, Client, Patience
from streamapp.client.steps import BUSY

SECTION = page("gateway").section("Client")


@pytest.fixture(scope="module")
def gateway():
    with GatewayThread() as running:
        yield running


def local(text, gateway):
    return text.replace("http://127.0.0.1:9382", gateway.url)


def test_the_client_sends(gateway, capsys):
    exec(local(SECTION.blocks("python")[0], gateway), {})
    place, bad, report = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\S+ \d \d+", place)
    assert bad.startswith("event.time ")
    assert report == "2000 0 []"


def test_the_async_client_sends(gateway):
    exec(local(SECTION.blocks("python")[1], gateway), {})


def test_the_command_lines(gateway, tmp_path):
    shown = SECTION.blocks("console")[0].split("$ ")[1:]
    assert len(shown) == 2
    for block, code in zip(shown, (0, 65), strict=True):
        line, _, told = block.partition("\n")
        tool = f"{sys.executable} -m streamapp.cli"
        command = f"{line.replace('streamapp', tool)} --url {gateway.url} 2>&1"
        done = subprocess.run(
            ["bash", "-c", command], check=False, capture_output=True, text=True, cwd=tmp_path
        )
        assert (done.returncode, timeless(done.stdout)) == (code, timeless(told))


def timeless(text):
    return re.sub(r"[0-9.,]+(?= s |/s)", "N", text)


def test_the_numbers_are_the_code_s():
    patience = Patience()
    assert f"`Patience.retry_s` ({patience.retry_s:g})" in SECTION
    assert f"from {patience.backoff_s:g} to {patience.backoff_s_max:g} s" in SECTION
    said = re.search(r"answered with ([\d, ]+) or (\d+)", SECTION)
    assert {*map(int, said[1].split(", ")), int(said[2])} == BUSY
    for kind in (Client, AsyncClient):
        defaults = kind.__init__.__kwdefaults__
        assert (defaults["batch_events"], defaults["batch_bytes"]) == (500, 1 << 20)
