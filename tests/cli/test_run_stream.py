"""``streamapp run FILE --stream``, where nothing is started."""

import pytest
from words_flow import words_flow

from streamapp.cli.flow_stream import run_stream
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.flows import Flow


def test_a_second_feed_is_refused_before_it_starts_anything(clean, monkeypatch):
    stage = {"service": "text", "operation": "analyze"}
    flow = words_flow(clean, stage, [{"document_id": "1", "text": "a b"}])
    settings, started = load()[0], []
    monkeypatch.setattr(Flow, "make_topics", lambda _: started.append("topics"))
    monkeypatch.setattr(Flow, "supervisor", lambda *_: started.append("groups"))
    first = Flow(settings, flow, {})
    with first.alone(), pytest.raises(Refuse, match="another process feeds") as refused:
        run_stream(settings, flow, {}, clean / "out", feed=True, as_json=True)
    assert (refused.value.code, started) == ("flow.busy", [])
