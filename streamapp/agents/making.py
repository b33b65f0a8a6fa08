"""What the infer step makes of a batch: enriched records, dead letters, copies and frames."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamapp.agents.publish import Standpoint, enriched_records
from streamapp.core.batch import Batch, Rejected
from streamapp.core.slice import RecordLike
from streamapp.transport.clients import Outgoing
from streamapp.workflow import PartitionState, Plan
from streamapp.workflow.repeats import Repeats, identities
from streamapp.workflow.state import Overlay

#: More records to publish before the enriched ones of the same range: topic and records.
Twin = Callable[[Batch], Sequence[tuple[str, Sequence[Outgoing]]]]
#: What goes round the stages of a batch: the batch they made of it is given to the result.
Framing = Callable[[Batch], AbstractContextManager[Callable[[Batch], None]]]
Raw = Mapping[int, RecordLike]


def no_frames(_events: Batch) -> AbstractContextManager[Callable[[Batch], None]]:
    """Another process makes frames of what is published."""
    return nullcontext(lambda _batch: None)


def joined(twins: Sequence[Twin]) -> Twin | None:
    """All that several publish; None for none."""
    if not twins:
        return None
    return lambda batch: [pair for twin in twins for pair in twin(batch)]


class Made(NamedTuple):
    """What became of a Slice; ``snapshot`` when one was due after it."""

    records: Sequence[Outgoing]
    rejects: Sequence[Rejected]
    twins: Sequence[tuple[str, Sequence[Outgoing]]]
    events: int
    repeats: int
    snapshot: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class Making:
    """How a batch is made.

    ``standpoint`` is its partition's, ``bytes_max`` the enriched topic's ``record_bytes_max``;
    ``is_ours`` tells whether the partition still is.
    """

    plan: Plan
    standpoint: Standpoint
    bytes_max: int
    twin: Twin | None
    framing: Framing
    is_ours: Callable[[], bool]

    def of(self, decoded: Batch, raw: Raw, state: PartitionState, repeats: Repeats) -> Made:
        """Run every stage and encode.  State and repeats change when all of the batch is made.

        Raises:
            Retry: from a stage; nothing was changed, the same call may be repeated.
            Halt: from a stage.
        """
        return _one(self._parts(decoded, raw, state, repeats))

    def _parts(
        self, decoded: Batch, raw: Raw, state: PartitionState | Overlay, repeats: Repeats
    ) -> list[Made]:
        """What comes of a batch, in offset order.

        More than one part where an event was refused that comes again behind it: only one that went
        through makes another a repeat, and what the stages make of an event must not depend on how
        batches are cut.
        """
        events, found = repeats.without(decoded)
        trial = state.overlay() if len(events) < len(decoded) else state
        with self.framing(events) as commit:
            batch, states = self.plan.run(events, trial, raw)
            standpoint = replace(self.standpoint, provenance=self.plan.provenance())
            records, rejects = enriched_records(batch, states, standpoint, raw, self.bytes_max)
            if len(rejects) > len(batch.rejects):
                batch = _without(batch, rejects)
            late = repeats.refused(decoded, batch) if trial is not state else []
            if not late:
                if isinstance(trial, Overlay) and trial is not state:
                    trial.commit()
                # What a new owner will read from these records.
                repeats.remember(found if len(batch) == len(found) else identities(batch.rows))
                twins = self.twin(batch) if self.twin is not None else ()
                if self.is_ours():
                    commit(batch)  # last: until here the batch's columns may lie in the ring
                return [Made(records, rejects, twins, len(batch), len(decoded) - len(events))]
        draft, window = state.overlay(), repeats.copy()
        parts: list[Made] = []
        for part in decoded.cuts(late):
            parts += self._parts(part, raw, draft, window)
        draft.commit()
        repeats.replace(window)
        return parts


def _one(parts: Sequence[Made]) -> Made:
    if len(parts) == 1:
        return parts[0]
    return Made(
        [record for part in parts for record in part.records],
        [reject for part in parts for reject in part.rejects],
        [twin for part in parts for twin in part.twins],
        sum(part.events for part in parts),
        sum(part.repeats for part in parts),
    )


def _without(batch: Batch, rejects: Sequence[Rejected]) -> Batch:
    """The rows that were not rejected."""
    gone = np.isin(batch.offsets(), [reject.source_offset for reject in rejects])
    return replace(batch, rows=batch.rows.filter(pa.array(~gone)))
