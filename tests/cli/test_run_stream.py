"""``streamapp run FILE --stream``, where nothing is started."""

import pytest

from streamapp.cli.flow_stream import run_stream
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.flows import Flow

FILE = """name: words
inputs:
  rows: {type: file, path: rows.jsonl}
stages:
  - name: counted
    service: text
    operation: analyze
outputs:
  counted: {source: counted, format: jsonl}
"""


def test_a_second_feed_is_refused_before_it_starts_anything(clean, monkeypatch):
    (clean / "rows.jsonl").write_text('{"document_id": "1", "text": "a b"}\n')
    (clean / "words.yaml").write_text(FILE)
    settings, started = load()[0], []
    monkeypatch.setattr(Flow, "make_topics", lambda _: started.append("topics"))
    monkeypatch.setattr(Flow, "supervisor", lambda *_: started.append("groups"))
    first = Flow(settings, clean / "words.yaml", {})
    with first.alone(), pytest.raises(Refuse, match="another process feeds") as refused:
        run_stream(settings, clean / "words.yaml", {}, clean / "out", feed=True, as_json=True)
    assert (refused.value.code, started) == ("flow.busy", [])
