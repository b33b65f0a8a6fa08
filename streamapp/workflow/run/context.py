"""What the parts of one run share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from streamapp.core.clock import now_us
from streamapp.core.errors import StreamappError
from streamapp.workflow.graph.spec import Graph
from streamapp.workflow.run.asked import identity
from streamapp.workflow.run.binding import Binding
from streamapp.workflow.run.budget import Budget
from streamapp.workflow.run.cache import Cache, Entry
from streamapp.workflow.run.events import Event, Kind, Observer, PartEnded
from streamapp.workflow.run.keys import content_of
from streamapp.workflow.run.pool import Pool
from streamapp.workflow.run.record import Record, keep_record
from streamapp.workflow.run.report import StageReport, Written
from streamapp.workflow.run.sizing import Limits


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of an input, a source or a stage.

    Attributes:
        entry: its parts; None: there is none, because of a failure that may be.
        content: digest of the rows.
    """

    entry: Entry | None
    content: str = ""

    @classmethod
    def of(cls, entry: Entry) -> "Result":
        """With the digest of its content."""
        return cls(entry, content_of(entry.parts))


class Failure(Exception):  # carries an error of ours out of a part
    """A part failed and was told of."""

    def __init__(self, error: StreamappError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class Context:
    """One run's parts."""

    binding: Binding
    cache: Cache
    pool: Pool
    budget: Budget
    limits: Limits
    observer: Observer
    record: Record
    results: dict[str, Result] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    _models: Any = None

    @property
    def graph(self) -> Graph:
        return self.binding.graph

    def keep(self) -> None:
        """Keep the run's record as it is now."""
        keep_record(self.cache, self.record)

    def models_now(self, asked: Iterable[str]) -> dict[str, str]:
        """What each of those names of models stands for now."""
        if self._models is None:
            self._models = self.pool.models()
        return {what: identity(self._models, what) for what in asked}

    def tell(self, event: Event) -> None:
        """Tell whoever looks."""
        self.observer(event)

    def ended(self, kind: Kind, report: StageReport) -> None:
        """Note how a part ended."""
        self.reports.append(report)
        self.tell(PartEnded(kind, report, now_us()))
