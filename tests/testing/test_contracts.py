"""Each test of the contract finds the stage that breaks it."""

from typing import ClassVar

import pyarrow as pa
import pytest

from streamapp.core.errors import Halt, Reject
from streamapp.plugin import BaseStage, StatefulStage, float32, int32, stage
from streamapp.testing.contracts.stage import StageContract


class _Ones(BaseStage):
    name = "mine"
    reads = ("text",)
    writes: ClassVar = {"one": float32}

    def enrich(self, batch):
        return {"one": pa.array(self.values(batch), float32)}

    def values(self, batch):
        return [1.0] * len(batch)


class _Picky(_Ones):
    """Takes no empty texts, and says so: that is allowed."""

    def enrich(self, batch):
        if any(text is None or not text.strip() for text in batch.strings("text")):
            raise Reject("mine.empty", "there is no text")
        return super().enrich(batch)


class _Clumsy(_Ones):
    def values(self, batch):
        return [1.0 / len(text or "") for text in batch.strings("text")]


class _Crowded(_Ones):
    def values(self, batch):
        return [float(len(batch))] * len(batch)


class _Nearly(_Ones):
    """A model's arithmetic, which depends on the batch's shape a little."""

    def values(self, batch):
        return [1.0 + 1e-7 * len(batch)] * len(batch)


class _Moody(_Ones):
    made = 0

    def __init__(self, options=None):
        super().__init__(options)
        type(self).made += 1
        self.mood = float(type(self).made)

    def values(self, batch):
        return [self.mood] * len(batch)


class _NoEmpty(_Ones):
    def values(self, batch):
        return [float(batch.column("source_offset")[0].as_py() >= 0)] * len(batch)


class _LateColumns(_Ones):
    def open(self, models):
        self.writes = {"one": float32, "two": float32}


class _SloppyClose(_Ones):
    def open(self, models):
        self.model = object()

    def close(self):
        del self.model


class _Loud(_Ones):
    name = "Mine Is Loud"


class _Counting(StatefulStage):
    name = "mine"
    writes: ClassVar = {"one": int32}

    def enrich(self, batch, state=None):
        numbers = [self.count(state, offset) for offset in batch.offsets().tolist()]
        return {"one": pa.array(numbers, int32)}

    def count(self, state, offset):
        seen = (state.get("all", "all") or 0) + 1
        state.put("all", "all", offset, seen)
        return seen


class _Forgetful(_Counting):
    """Keeps what it remembers in the process."""

    seen = 0

    def count(self, state, offset):
        self.seen += 1
        return self.seen


class _Rich(_Counting):
    """Remembers a tuple, which comes back from the log as a list."""

    def count(self, state, offset):
        before = state.get("all", "all")
        state.put("all", "all", offset, (1,))
        return int(isinstance(before, tuple))


@stage("mine", version=1, reads=["text"], writes={"one": "int32"})
def _words(text):
    return {"one": len(text.split())}


@stage("mine", version=1, reads=["text"], writes={"one": "int32"})
def _misspelt(text):
    return {"on": len(text.split())}


class TestFunction(StageContract):
    stage = _words


class TestPicky(StageContract):
    stage = _Picky


class TestNearly(StageContract):
    stage = _Nearly


class TestInstance(StageContract):
    stage = _Ones()


class TestCounting(StageContract):
    stage = _Counting
    tolerance = 0


@pytest.mark.parametrize(
    ("broken", "test", "says"),
    [
        (_Loud, "test_it_says_what_it_is", "Mine Is Loud"),
        (_LateColumns, "test_it_says_what_it_is", "open.. changed"),
        (_SloppyClose, "test_it_can_be_closed_when_open_failed", "model"),
        (_Clumsy, "test_what_it_cannot_do_it_rejects", "ZeroDivisionError"),
        (_misspelt, "test_what_it_cannot_do_it_rejects", "did you mean 'one'"),
        (_Crowded, "test_neighbours_do_not_matter", "column one"),
        (_Moody, "test_the_same_events_give_the_same_columns", "column one"),
        (_NoEmpty, "test_an_empty_batch_has_the_columns_too", "out of bounds"),
        (_Forgetful, "test_a_restart_changes_nothing", "column one"),
        (_Rich, "test_a_restart_changes_nothing", "column one"),
    ],
)
def test_a_stage_that_breaks_it_is_found(broken, test, says):
    suite = type("Suite", (StageContract,), {"stage": broken})()
    with pytest.raises((AssertionError, AttributeError, IndexError), match=says):
        getattr(suite, test)()


def test_columns_other_than_declared_are_found():
    class Wrong(_Ones):
        writes: ClassVar = {"one": int32}

    suite = type("Suite", (StageContract,), {"stage": Wrong})()
    with pytest.raises(Halt, match="declared is int32"):
        suite.test_every_event_keeps_its_row_and_its_place()


def test_the_tolerance_is_what_decides():
    strict = type("Suite", (StageContract,), {"stage": _Nearly, "tolerance": 0})()
    with pytest.raises(AssertionError, match="column one"):
        strict.test_neighbours_do_not_matter()
