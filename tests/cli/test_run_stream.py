"""``streamapp run FILE --stream``, where nothing is started."""

import asyncio
from dataclasses import replace

import pytest
from words_flow import words_flow

from streamapp.cli.flow_stream import run_stream
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.flows import Flow, _check_topics


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


def test_a_group_for_another_number_of_partitions_is_refused(clean):
    stage = {"service": "text", "operation": "analyze"}
    path = words_flow(clean, stage, [{"document_id": "1", "text": "a b"}])
    settings, flow = load()[0], Flow(load()[0], path, {}, partitions=3)
    topics = asyncio.run(flow.make_topics())
    asyncio.run(_check_topics(replace(settings, flow_partitions=3), topics))
    with pytest.raises(Refuse, match="has 3 partitions, not 1") as refused:
        asyncio.run(_check_topics(settings, topics))
    assert refused.value.fix == "set flow_partitions to 3"
