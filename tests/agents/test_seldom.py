import logging

from streamapp.agents import seldom


def test_a_message_comes_once_in_a_while_whatever_its_values(monkeypatch):
    now_s = 100.0
    monkeypatch.setattr(seldom, "monotonic_s", lambda: now_s)
    passes = seldom.Seldom("aiokafka", 30.0).filter

    def said(name, text, *values):
        return passes(logging.LogRecord(name, logging.ERROR, "", 0, text, values, None))

    assert said("aiokafka.client", "no node %s", 1)
    assert not said("aiokafka.client", "no node %s", 2)
    assert said("aiokafka.conn", "no node %s", 1)
    assert said("aiokafka.client", "another")
    assert said("streamapp", "again") == said("streamapp", "again") == True  # noqa: E712
    now_s += 30
    assert said("aiokafka.client", "no node %s", 3)


def test_it_does_not_grow(monkeypatch):
    monkeypatch.setattr(seldom, "_MESSAGES_MAX", 10)
    filter_ = seldom.Seldom("aiokafka")
    for number in range(100):
        filter_.filter(logging.LogRecord("aiokafka", 40, "", 0, f"text {number}", (), None))
        assert len(filter_._said) <= 10
