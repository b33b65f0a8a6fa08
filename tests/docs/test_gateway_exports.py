"""What docs/gateway.md shows of exports and attachments runs, and its numbers are the code's."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import aiohttp
import pytest

from streamapp.agents.exports.condition import Condition
from streamapp.agents.exports.exporter import check
from streamapp.agents.exports.post import RETRY_AFTER_S_MAX, Pace
from streamapp.compose import plan
from streamapp.core.config import describe, load
from streamapp.core.exports import BATCH_SIZE_MAX, checked_changes, declared_exports
from streamapp.core.metrics import Metrics
from streamapp.gateway import GatewayConfig, create_app
from streamapp.gateway.attachments import INLINE_BYTES_MAX
from streamapp.gateway.forms import _PARTS_MAX
from streamapp.gateway.listen import listening
from streamapp.testing import MemoryLog
from streamapp.topics import catalogue
from streamapp.transport import TopicSpec

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()


def section(name):
    return re.search(rf"^## {name}\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)[1]


def block(text, language):
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]


def test_the_declared_exports_are_understood():
    tables = tomllib.loads(block(section("Exports"), "toml"))["exports"]
    exports = declared_exports(tables, lambda _: "whsec_c2VjcmV0")
    columns = plan(load()[0]).columns()
    for export in exports.values():
        check(export, columns)
    assert set(exports) == {"crm", "default"}
    below = {"webhook_url": "https://hooks.example.com/streamapp/anything"}
    assert checked_changes(below, exports["default"]).webhook_url
    Condition("crm", exports["crm"].where, columns).close()


def test_the_numbers_are_the_code_s():
    text = section("Exports")
    assert f"1 to {BATCH_SIZE_MAX:,}" in text
    assert RETRY_AFTER_S_MAX == 3600
    assert (Pace().first_s, Pace().max_s) == (1, 60)
    text, defaults = section("Attachments"), {field.name: field.default for field in describe()}
    assert f"more than {INLINE_BYTES_MAX >> 10} KB" in text
    assert f"up to {_PARTS_MAX - 1} files" in text
    assert defaults["attachments_bytes_max"] == 10 << 30
    assert f"`attachments_days` ({defaults['attachments_days']})" in text


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
async def test_the_attachments_of_the_page_are_kept(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"\x89PNG" * 175_000)
    log, declared = MemoryLog(), catalogue.load()
    for topic in declared:
        log.create(TopicSpec(*topic.log_spec()))
    config = GatewayConfig(port=0, attachments_url=str(tmp_path / "kept"))
    producer = log.producer()
    await producer.start()
    app = create_app(config, producer, declared, Metrics())
    text = section("Attachments")
    commands = re.findall(r"^\$ (curl .*)$", block(text, "console"), re.MULTILINE)
    async with listening(app, config) as (_, url), aiohttp.ClientSession() as http:
        said = []
        for command in commands:
            words = shlex.split(command.replace("localhost:9382", url.removeprefix("http://")))
            done = await asyncio.to_thread(
                subprocess.run, [*words, "-sS", "--noproxy", "*"], cwd=tmp_path,
                capture_output=True, check=True,
            )  # fmt: skip
            said.append(json.loads(done.stdout))
        assert said[0]["status"] == "received"
        shown = json.loads(re.search(r"^{.*}$", block(text, "console"), re.MULTILINE)[0])
        assert said[1].keys() == shown.keys()
        assert said[1]["bytes"] == shown["bytes"]
        assert said[1]["sha256"][:4] == shown["sha256"][:4]
        async with http.get(url + said[1]["url"]) as answer:
            assert await answer.read() == (tmp_path / "photo.png").read_bytes()
    await producer.stop()
    [record] = [r for part in range(4) for r in log.read(catalogue.RAW, part, 0).records]
    [attachment] = json.loads(record.value)["attachments"]
    assert attachment == {"name": "photo.png", **said[1]}
