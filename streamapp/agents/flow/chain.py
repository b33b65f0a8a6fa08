"""The stages of a group, opened: rows of its source in, rows of each stage out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from streamapp.agents.flow.record import Aside
from streamapp.core.errors import Halt
from streamapp.core.project import read_secret
from streamapp.plugin.calling import CallWork, TableSources
from streamapp.plugin.registered import config_of
from streamapp.workflow.data import declared_models, declared_sources
from streamapp.workflow.graph.expressions import fill
from streamapp.workflow.run.binding import Binding
from streamapp.workflow.run.secrets import Redactor

if TYPE_CHECKING:
    from streamapp.plugin import Models, Operation


class Chain:
    """Stages in order; each takes the rows of one before it or of the source.

    Args:
        binding: of the whole workflow.
        steps: those of the group, in order.
        make_models: the registry, made when a stage first asks for a model.
    """

    def __init__(
        self, binding: Binding, steps: Sequence[str], make_models: "Callable[[], Models]"
    ) -> None:
        graph = binding.graph
        self._taken = {name: graph.takes(graph.step(name))[0] for name in steps}
        self._schemas = binding.schemas
        self._binding = binding
        folder = graph.folder
        self._models: Models | None = None

        def models() -> "Models":
            if self._models is None:
                self._models = declared_models(make_models(), folder)
            return self._models

        sources = TableSources({}, declared_sources(folder))
        self._works = {name: CallWork(sources, models, folder) for name in steps}
        self._redactor = Redactor()
        self._operations: dict[str, Operation] = {}

    def open(self) -> None:
        """Make and open every operation; once.

        Raises:
            Refuse: as the operations do.
            Retry: something outside does not answer.
        """
        folder = self._binding.graph.folder
        secret = self._redactor.reading(lambda name: read_secret(name, folder))
        for name, work in self._works.items():
            if name not in self._operations:
                (call,) = self._binding.calls[name]
                config = config_of(call.kind.Config, fill(call.config, {}, secret), call.operation)
                operation = call.kind(config)
                taken = self._taken[name]
                operation.schema({taken: self._schemas[taken]}, work)
                operation.open(work)
                self._operations[name] = operation

    def close(self) -> None:
        """Free what the operations hold."""
        for operation in self._operations.values():
            operation.close()
        self._operations.clear()

    def run(self, rows: pa.Table, *, is_end: bool) -> tuple[dict[str, pa.Table], list[Aside]]:
        """What each stage makes of the next rows of the source, and what they set aside.

        Args:
            rows: in the source's order.
            is_end: no more will come of this run, so open windows are closed.

        Raises:
            Refuse: what only the rows could show.
            Retry: something outside does not answer; put the state back before trying again.
        """
        made: dict[str, pa.Table] = {}
        for name, operation in self._operations.items():
            taken = self._taken[name]
            given = made.get(taken, rows)
            made[name] = self._made(name, operation, taken, given, is_end=is_end)
        asides = [
            Aside(name, " ".join(reason.split()), table)
            for name, work in self._works.items()
            for table, reason in work.aside
        ]
        for work in self._works.values():
            work.aside.clear()
        return made, asides

    def state(self) -> bytes:
        """What the windows remember; empty where there are none."""
        held = {name: each.state() for name, each in self._windows().items()}
        return msgspec.msgpack.encode(held) if held else b""

    def restore(self, state: bytes) -> None:
        """Go on as the one whose state this is; empty: from the beginning."""
        for work in self._works.values():
            work.aside.clear()
        held: dict[str, bytes] = msgspec.msgpack.decode(state) if state else {}
        for name, operation in self._windows().items():
            if name in held:
                operation.restore(held[name])
            else:
                operation.flush()  # forgets what was open

    def _windows(self) -> Mapping[str, Any]:
        calls = self._binding.calls
        return {
            name: operation
            for name, operation in self._operations.items()
            if calls[name][0].scope == "window"
        }

    def _made(
        self, name: str, operation: Any, taken: str, given: pa.Table, *, is_end: bool
    ) -> pa.Table:
        schema = self._schemas[name]
        if self._binding.calls[name][0].scope == "window":
            parts = [operation.feed(given)] if given.num_rows else []
            parts += [operation.flush()] if is_end else []
        else:
            parts = [operation.run({taken: given})] if given.num_rows else []
        for part in parts:
            if not part.schema.equals(schema):
                raise Halt(
                    "operation.schema",
                    f"stage {name!r} returned other columns than it said: {part.schema}",
                    "this is a mistake in the operation; report it to its author",
                )
        return pa.concat_tables(parts) if parts else schema.empty_table()
