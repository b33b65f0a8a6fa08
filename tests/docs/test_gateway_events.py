"""What docs/gateway.md shows of events runs, and what it says is what the code has."""

import json
import re
import shlex
import tomllib
from pathlib import Path

from multidict import CIMultiDict, CIMultiDictProxy
from sites import Handler, Site
from taken import each

from streamapp.core.config import describe
from streamapp.gateway import arrow, plain
from streamapp.gateway.budget import Budget
from streamapp.gateway.cloudevents import binary_attributes
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.idempotency import REMEMBERED_MAX
from streamapp.gateway.signatures import TOLERANCE_S
from streamapp.gateway.sources import declared_sources

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()


def block(language, begin):
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return next(one for one in blocks if begin in one)


def test_the_declared_webhooks_are_understood():
    tables = tomllib.loads(block("toml", "[webhooks."))["webhooks"]
    sources = declared_sources(tables, lambda _: "whsec_c2VjcmV0c2VjcmV0")
    kinds = re.findall(r"^\| `(standard|github|stripe)` \|", PAGE, re.MULTILINE)
    assert sorted(source.kind for source in sources.values()) == sorted(kinds)
    for kind in ("github", "stripe"):
        [source] = [one for one in sources.values() if one.kind == kind]
        assert f"`{source.type_prefix}` and" in PAGE


def test_the_numbers_are_the_code_s():
    assert f"last {REMEMBERED_MAX:,}" in PAGE
    assert TOLERANCE_S == 5 * 60
    defaults = {field.name: field.default for field in describe()}
    assert (defaults["dedup_window_s"], defaults["dedup_window_events"]) == (86_400, 1_000_000)


def test_the_cloudevent_of_the_page_is_one():
    words = shlex.split(block("", "ce-specversion").replace("\\\n", " "))
    headers = [words[n + 1].split(": ") for n, word in enumerate(words) if word == "-H"]
    attributes = binary_attributes(CIMultiDictProxy(CIMultiDict(headers)), whole=True)
    assert attributes == {"specversion": "1.0", "id": "1", "source": "/shop", "type": "Order"}


def test_the_arrow_client_sends_events(monkeypatch, capsys):
    got = []

    class Answer(Handler):
        def do_POST(self):
            got.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

    with Site(Answer) as server:
        exec(block("python", "new_stream").replace("9382", str(server.server_port)), {})
    [(headers, body)] = got
    assert headers["Content-Type"] == arrow.MEDIA
    lease = Budget(events_max=99, bytes_max=1 << 30).lease()
    making = plain.Making("/v1/events", 0, 1 << 20, ())
    made = arrow.groups(
        body, lease, making, config=GatewayConfig(), id_prefix=headers["Idempotency-Key"]
    )
    events = [(one.id, json.loads(one.record.value)) for _, one in each(made)]
    assert [id_ for id_, _ in events] == ["upload-1-1", "upload-1-2"]
    assert events[1][1] == {"message": "world", "plan": "free"}
