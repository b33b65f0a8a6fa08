"""The Plan: a workflow's stages, bound and in order, run once each per batch.

A stage that fails on a batch is called again with its halves until the bad row is alone; that row
becomes a reject with its original bytes and every other row goes on.  So a failed event costs
itself and nothing else.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamapp.core.batch import Batch, Rejected
from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.counted import counted
from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.core.slice import RecordLike
from streamapp.core.state import StateEntry
from streamapp.plugin import (
    Columns,
    ModelRef,
    Models,
    Stage,
    StageFactory,
    StatefulStage,
    Turning,
)
from streamapp.topics.wire import rejected
from streamapp.workflow.blame import blamed
from streamapp.workflow.order import order
from streamapp.workflow.spec import Workflow, make_stages
from streamapp.workflow.state import Overlay, PartitionState
from streamapp.workflow.texts import EmbedTexts, text_embedder
from streamapp.workflow.vectors import check_vectors

#: Called after each stage of each batch with its name, the rows and the seconds it took.
OnStage = Callable[[str, int, float], None]
Raw = Mapping[int, RecordLike]

_log = logging.getLogger(__name__)


class Plan:
    """A workflow's stages in running order.

    Columns are known at once; weights are loaded by ``open``.

    Args:
        workflow: as read by ``load_workflow``.
        models: the registry.
        factories: stages by name, before those that are installed.
        on_stage: told how long each stage took.
        clock: where seconds come from.

    Raises:
        Refuse: a stage is unknown, refuses its options, or their columns do not fit together.
    """

    def __init__(
        self,
        workflow: Workflow,
        models: Models,
        factories: Mapping[str, StageFactory] | None = None,
        on_stage: OnStage | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        made = make_stages(workflow, factories)
        for stage in made:
            with blamed(stage.name, "declare"):
                stage.declare(models)
        self.stages = order(made)
        self.is_open = False
        self.on_stage = on_stage
        self._models = models
        self._clock = clock
        self._stage_s_max = workflow.stage_ms_max / 1000
        self._provenance = ""
        self._used: tuple[tuple[ModelRef, ...], ...] | None = None

    def open(self) -> None:
        """Load every stage's models; when one fails, those before it are closed again.

        Raises:
            Refuse: a model is not pulled or does not match its manifest, a stage fails, or two
                take the embedding for vectors of different models.
        """
        opened: list[Stage] = []
        try:
            for stage in self.stages:
                opened.append(stage)
                with blamed(stage.name, "open"):
                    stage.open(self._models)
            check_vectors(self.stages, Refuse)
        except BaseException:
            for stage in opened:
                stage.close()
            raise
        self._say()
        self.is_open = True

    def close(self) -> None:
        """Free what the stages hold."""
        if self.is_open:
            self.is_open = False
            for stage in self.stages:
                stage.close()

    def columns(self) -> pa.Schema:
        """What the stages add to a batch, in order."""
        return pa.schema(
            [pa.field(name, kind) for stage in self.stages for name, kind in stage.writes.items()]
        )

    def text_embedder(self) -> EmbedTexts | None:
        """What embeds a text as the workflow does; None when it does not."""
        return text_embedder(self.stages, self._models)

    def embedding_dim(self) -> int:
        """Length of the column ``embedding``; 0 when no stage writes one."""
        columns = self.columns()
        place = columns.get_field_index("embedding")
        return int(columns.field(place).type.list_size) if place >= 0 else 0

    def provenance(self) -> str:
        """Which stages and models made the rows: canonical JSON, the same for the same models.

        A list of ``{"stage", "version", "models": ["task/name@version+sha256 runtime"]}``, see
        ``ModelRef.runtime``; needs an open plan.  A model may take another's place between two
        batches: ask after each ``run``.
        """
        return self._provenance

    def run(
        self, batch: Batch, state: PartitionState | Overlay, raw: Raw
    ) -> tuple[Batch, Sequence[StateEntry]]:
        """Run every stage: the batch with all columns, and every change of the state in order.

        Args:
            batch: decoded events; its rejects are kept.
            state: changed when the whole batch went through, else left alone.
            raw: the source records by offset, for the original bytes of a reject.

        Raises:
            Retry: from a stage; nothing was changed.
            Halt: from a stage, or it returned other columns than it declared; nothing was changed.
        """
        if isinstance(self._models, Turning) and self._models.turn():
            check_vectors(self.stages, Halt)
        overlay = state.overlay()
        for stage in self.stages:
            started = self._clock.monotonic_s()
            batch = _StageRun(stage, overlay, raw).over(batch)
            self._report(stage.name, len(batch), self._clock.monotonic_s() - started)
        overlay.commit()
        self._say()
        return batch, overlay.changes

    def _say(self) -> None:
        """Make the provenance what the stages used last."""
        used = tuple(stage.models for stage in self.stages)
        if used == self._used:
            return
        said = [
            {"stage": s.name, "version": s.version, "models": [_full(ref) for ref in s.models]}
            for s in self.stages
        ]
        self._provenance = json.dumps(said, sort_keys=True, separators=(",", ":"))
        self._used = used

    def _report(self, name: str, rows: int, seconds: float) -> None:
        if self.on_stage is not None:
            self.on_stage(name, rows, seconds)
        if seconds > self._stage_s_max:
            _log.warning("stage %s took %.1f s for %s", name, seconds, counted(rows, "row"))


class _StageRun:
    """One stage on one batch."""

    def __init__(self, stage: Stage, overlay: Overlay, raw: Raw) -> None:
        self._stage = stage
        self._overlay = overlay
        self._raw = raw
        self._rejects: list[Rejected] = []
        self._kept: list[pa.RecordBatch] = []

    def over(self, batch: Batch) -> Batch:
        """The batch with the stage's columns, without the rows on which it failed."""
        if len(batch) == 0:
            return batch.with_columns(
                {name: pa.array([], kind) for name, kind in self._stage.writes.items()}
            )
        self._try(batch)
        if not self._rejects:
            return Batch(self._kept[0], batch.range, batch.rejects)
        rejects = sorted([*batch.rejects, *self._rejects], key=lambda one: one.source_offset)
        if self._kept:
            rows = pa.concat_batches(self._kept)
        else:
            empty = Batch(batch.rows.slice(0, 0), batch.range)
            rows = _StageRun(self._stage, self._overlay, self._raw).over(empty).rows
        return Batch(rows, batch.range, tuple(rejects))

    def _try(self, batch: Batch) -> None:
        """Rows in offset order, so that the state of what went before is in place."""
        attempt = self._overlay.overlay()
        try:
            columns = self._call(batch, attempt)
        except (Retry, Halt):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a stage raises is about these rows
            if len(batch) > 1:
                for half in batch.cut(len(batch) // 2):
                    self._try(half)
                return
            self._rejects.append(self._reject(batch, error))
            return
        attempt.commit()
        self._kept.append(batch.with_columns(columns).rows)

    def _call(self, batch: Batch, attempt: Overlay) -> Columns:
        stage = self._stage
        if isinstance(stage, StatefulStage):
            columns = stage.enrich(batch, attempt.view(stage.name))
        else:
            columns = stage.enrich(batch)
        return _checked(stage, columns, len(batch))

    def _reject(self, batch: Batch, error: Exception) -> Rejected:
        offset = int(batch.offsets()[0])
        known = isinstance(error, StreamappError)
        code = error.code if isinstance(error, StreamappError) else "stage.error"
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        if not known:
            _log.warning("stage %s failed at offset %d", self._stage.name, offset, exc_info=error)
        return rejected(self._raw[offset], self._stage.name, code, reason)


def _checked(stage: Stage, columns: Columns, rows: int) -> Columns:
    """The columns in declared order, when they are what the stage declared."""
    wrong = ""
    if set(columns) != set(stage.writes):
        wrong = f"columns {', '.join(columns)} where {', '.join(stage.writes)} are declared"
    for name, kind in stage.writes.items():
        array: Any = columns.get(name)
        if wrong:
            break
        if not isinstance(array, pa.Array):
            wrong = f"{type(array).__name__} for column {name!r}, not an Arrow array"
        elif array.type != kind:
            wrong = f"column {name!r} as {array.type}, declared is {kind}"
        elif len(array) != rows:
            wrong = f"{counted(len(array), 'value')} of column {name!r} for {counted(rows, 'row')}"
    if wrong:
        raise Halt(
            "stage.output", f"stage {stage.name!r} returned {wrong}", "mend the stage and restart"
        )
    return {name: columns[name] for name in stage.writes}


def _full(ref: Any) -> str:
    """A ModelRef with its whole sha256, and what computes it."""
    return f"{ref.task}/{ref.name}@{ref.version}+{ref.sha256} {ref.runtime}".rstrip()
