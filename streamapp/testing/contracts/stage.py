"""What every stage must do, whatever it computes.

Inherit it and name yours::

from streamapp.testing.contracts.stage import StageContract

class TestWordCount(StageContract):
    stage = word_count
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import getattr_static
from typing import Any, ClassVar

from streamapp.core.batch import EVENT_SCHEMA, Batch
from streamapp.core.ranges import OffsetRange
from streamapp.plugin import Models, Stage, StageFactory, StatefulStage
from streamapp.plugin.testing import HashModels
from streamapp.testing.clock import FakeClock
from streamapp.testing.pipeline import Pipeline
from streamapp.workflow import PartitionState, Workflow
from streamapp.workflow.spec import make_stages

#: Events as they come: with and without text, in several scripts, in and out of order.
EVENTS: tuple[Mapping[str, Any], ...] = (
    {"message": "Hello there", "conversation_id": "a", "actor": "ann", "duration_ms": 900},
    {"message": "I want to cancel my plan", "conversation_id": "a", "actor": "bob", "plan": "x"},
    {"message": "Quero cancelar meu plano", "conversation_id": "b", "time": 1_767_225_599_000},
    {"type": "PageView", "conversation_id": "a", "url": "/help", "tags": ["x", {"y": None}]},
    {"message": ""},
    {"message": "  \n\t "},
    {"message": "¿Dónde está mi pedido? 😀👩‍👩‍👧 \u202eright to left\u202c \x00 end"},
    {"message": "我想取消我的订阅", "conversation_id": "b", "actor": "ann", "plan": None},
    {"message": "one word " * 2000, "conversation_id": "c", "type": "UserMessage"},
    {"message": "again", "conversation_id": "a", "time": "2025-12-31T23:00:00Z"},
    {"message": "Hello there", "conversation_id": "a", "attachments": [{"uri": "file:///x"}]},
)


class StageContract:
    """Set ``stage``, and what it needs of the others; each test says one thing that must hold.

    - ``stage``: its factory or class, a stage, or the name of an installed one.
    - ``options``: stage name to options, for any of them.
    - ``upstream``: the stages that write what it reads beside the event's own columns.
    - ``models``: what stages are opened with; vectors without weights when None.
    - ``events``: what it is tried on, at least three.
    - ``tolerance``: how far floats of one event may differ between batches, relative to 1 or to the
      value where that is larger.  A model's arithmetic depends on the shape of the batch a little;
      set 0 where yours does not.
    """

    stage: Any
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    upstream: ClassVar[Sequence[Stage | StageFactory | str]] = ()
    models: ClassVar[Models | None] = None
    events: ClassVar[Sequence[Mapping[str, Any]]] = EVENTS
    tolerance: ClassVar[float] = 1e-5

    def test_it_says_what_it_is(self) -> None:
        """It has a name, a version, and columns of its own, which are final once declared."""
        stage = self._made()
        assert stage.name.isidentifier()
        assert stage.name == stage.name.lower()
        assert stage.version >= 1
        assert not isinstance(stage.reads, str), "reads is a list of names, not one name"
        assert stage.writes, "it writes no column"
        assert not set(stage.writes) & set(EVENT_SCHEMA.names), "a column of the event itself"
        declared = dict(stage.writes)
        stage.open(self._models())
        assert dict(stage.writes) == declared, "open() changed what declare() said"
        stage.close()

    def test_it_can_be_closed_when_open_failed(self) -> None:
        """A stage is closed when its ``open`` raised, and may be when it was never called."""
        self._made().close()

    def test_every_event_keeps_its_row_and_its_place(self) -> None:
        """Every event becomes a row or a reject, in order, with the columns that were declared."""
        with self._pipeline() as pipeline:
            rows = pipeline.send(*self._sent())
            rejected = [reject.source_offset for reject in pipeline.rejects()]
            expected = [at for at in range(len(self.events)) if at not in rejected]
            assert [row["source_offset"] for row in rows] == expected
            found = pipeline.table().schema
            for name, kind in self._made().writes.items():
                assert found.field(name).type == kind

    def test_what_it_cannot_do_it_rejects(self) -> None:
        """An event that it cannot take is a Reject with a reason, not an accident."""
        with self._pipeline() as pipeline:
            pipeline.send(*self._sent())
            ours = {"stage.error", "stage.result"}
            accidents = [reject for reject in pipeline.rejects() if reject.code in ours]
            assert accidents == []

    def test_an_empty_batch_has_the_columns_too(self) -> None:
        """No rows in, no rows out, and every column of its type."""
        with self._pipeline() as pipeline:
            pipeline.send(*self._sent())
            rows = pipeline.table().combine_chunks().to_batches()[0].slice(0, 0)
        stage = self._made()
        stage.open(self._models())
        empty = Batch(rows, OffsetRange("events.raw", 0, 0, 0))
        if isinstance(stage, StatefulStage):
            state = PartitionState(100).overlay().view(stage.name)
            columns = stage.enrich(empty, state)
        else:
            columns = stage.enrich(empty)
        stage.close()
        assert {name: array.type for name, array in columns.items()} == dict(stage.writes)
        assert {len(array) for array in columns.values()} == {0}

    def test_neighbours_do_not_matter(self) -> None:
        """An event's columns are the same alone, in halves and in one batch."""
        whole = self._columns([self._sent()])
        _assert_same(whole, self._columns(self._halves()), self.tolerance)
        _assert_same(whole, self._columns(self._alone()), self.tolerance)

    def test_the_same_events_give_the_same_columns(self) -> None:
        """Another process computes the same, bit by bit."""
        _assert_same(self._columns([self._sent()]), self._columns([self._sent()]), 0)

    def test_a_restart_changes_nothing(self) -> None:
        """What it remembers comes back from the log, so a crash at any point changes no column."""
        remembers = isinstance(self._made(), StatefulStage)
        parts = self._alone() if remembers else self._halves()
        _assert_same(self._columns(parts), self._columns(parts, restart=True), 0)

    def _stage(self) -> Any:
        return getattr_static(type(self), "stage")  # a function there is no method of this class

    def _models(self) -> Models:
        return self.models or HashModels()

    def _sent(self) -> list[Mapping[str, Any]]:
        return [{"id": str(number), **event} for number, event in enumerate(self.events)]

    def _halves(self) -> list[list[Mapping[str, Any]]]:
        middle = len(self.events) // 2
        return [self._sent()[:middle], self._sent()[middle:]]

    def _alone(self) -> list[list[Mapping[str, Any]]]:
        return [[event] for event in self._sent()]

    @contextmanager
    def _pipeline(self) -> Iterator[Pipeline]:
        pipeline = Pipeline(clock=FakeClock(), models=self._models())
        pipeline.use(*self.upstream, self._stage(), **self.options)
        try:
            yield pipeline
        finally:
            pipeline.close()

    def _made(self) -> Stage:
        """A stage of its own, declared and not open."""
        stage = self._stage()
        if isinstance(stage, str):
            chosen = Workflow(path="StageContract", stages=(stage,), options=self.options)
            [made] = make_stages(chosen)
        elif isinstance(stage, type):
            made = stage(self.options.get(stage.name, {}))  # type: ignore[attr-defined]
        elif isinstance(stage, Stage):
            made = stage
        else:
            made = stage(self.options.get(stage({}).name, {}))
        made.declare(self._models())
        return made

    def _columns(
        self, batches: Sequence[Sequence[Mapping[str, Any]]], *, restart: bool = False
    ) -> dict[int, dict[str, Any]]:
        """Source offset to the stage's columns, of events sent in these batches."""
        written = [*self._made().writes]
        with self._pipeline() as pipeline:
            for batch in batches:
                pipeline.send(*batch)
                if restart:
                    pipeline.restart()
            return {
                row["source_offset"]: {name: row[name] for name in written}
                for row in pipeline.rows()
            }


def _assert_same(
    one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]], tolerance: float
) -> None:
    assert one.keys() == other.keys(), "other events were rejected"
    different = {
        f"event {offset}, column {name}": (value, other[offset][name])
        for offset, columns in one.items()
        for name, value in columns.items()
        if not _same(value, other[offset][name], tolerance)
    }
    assert different == {}


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other or abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        same_keys = one.keys() == other.keys()
        return same_keys and all(_same(one[key], other[key], tolerance) for key in one)
    return bool(one == other)
