"""``pipeline.run``: several transforms, one after the other, as one operation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import pyarrow as pa
from msgspec import Meta

from streamapp.plugin import Config, Halt, Models, Refuse, Source, Sources, Work
from streamapp.services.pipeline.base import Transform
from streamapp.services.pipeline.groups import Aggregate, Dedupe, Sample
from streamapp.services.pipeline.join import Join
from streamapp.services.pipeline.rows import Filter, Map
from streamapp.services.pipeline.validate import Validate
from streamapp.services.pipeline.window.operation import Window

TRANSFORMS: Mapping[str, type[Transform]] = {
    "aggregate": Aggregate,
    "dedupe": Dedupe,
    "filter": Filter,
    "join": Join,
    "map": Map,
    "sample": Sample,
    "validate": Validate,
    "window": Window,
}
TRANSFORMS_MAX = 64


class RunConfig(Config, frozen=True, kw_only=True):
    """The transforms, in order.

    Attributes:
        transforms: each a name and its config, like ``filter: {where: age > 17}``; for a filter the
            expression is enough.
    """

    transforms: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1, max_length=TRANSFORMS_MAX)]


class Run(Transform):
    """Each transform takes what the one before left.

    Its scope is ``row`` when that of all is, ``window`` with one window among such, else ``table``.
    Joins that name no source take the other inputs, in order.
    """

    Config: ClassVar[type[Config]] = RunConfig
    inputs: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self.steps = [_Step(at, said) for at, said in enumerate(config.transforms)]
        scopes = [step.transform.scope for step in self.steps]
        windows = scopes.count("window")
        is_row = not windows and "table" not in scopes
        is_window = windows == 1 and "table" not in scopes
        self.scope = "row" if is_row else "window" if is_window else "table"  # type: ignore[misc]
        self.parallel = "threads" if is_row else "none"  # type: ignore[misc]  # of this instance

    def plan(self, inputs: Mapping[str, pa.Schema], sources: Sources) -> pa.Schema:
        """What the last transform leaves.

        Raises:
            Refuse: one does not fit what the one before leaves, or there are inputs that none
                takes.
        """
        [(origin, schema), *others] = inputs.items()
        takers = [step for step in self.steps if step.takes_input]
        if len(takers) != len(others):
            raise Refuse(
                "operation.inputs",
                f"config.transforms: {len(takers)} joins take an input, there are {len(others)}",
                "give the stage as many inputs more, or name a source in each join",
            )
        more = dict(zip(takers, others, strict=True))
        for step in self.steps:
            taken = dict([more[step]]) if step in more else {}
            with step.place():
                schema = step.transform.schema({origin: schema, **taken}, sources)
            origin = step.name
        return schema

    def open(self, work: Work) -> None:
        super().open(work)
        for step in self.steps:
            step.transform.open(_StepWork(work, step.key, len(self.steps)))

    def close(self) -> None:
        for step in self.steps:
            step.transform.close()
        super().close()

    def apply(self, inputs: Mapping[str, pa.Table]) -> pa.Table:
        [(origin, table), *others] = inputs.items()
        return self._through(self.steps, table, origin, iter(others))

    def feed(self, rows: pa.Table) -> pa.Table:
        """The windows that these rows close, and what the transforms behind make of them."""
        before, window, after = self._parts()
        self.prepare({"rows": rows})
        closed = window.feed(self._through(before, rows, "rows", iter(())))
        self.work.advance(rows.num_rows)
        return self._through(after, closed, "windows", iter(()))

    def flush(self) -> pa.Table:
        """The windows that are still open, made the same of."""
        _, window, after = self._parts()
        return self._through(after, window.flush(), "windows", iter(()))

    def state(self) -> bytes:
        """The window's."""
        return self._parts()[1].state()

    def restore(self, state: bytes) -> None:
        """Give the window its state."""
        self._parts()[1].restore(state)

    def report(self) -> list[dict[str, Any]]:
        """Of each transform, in order, since it was last asked."""
        return [told for step in self.steps for told in step.transform.report()]

    def _through(
        self,
        steps: "Sequence[_Step]",
        table: pa.Table,
        origin: str,
        others: Iterator[tuple[str, pa.Table]],
    ) -> pa.Table:
        for step in steps:
            taken = dict([next(others)]) if step.takes_input else {}
            with step.place():
                table = step.transform.run({origin: table, **taken})
            origin = step.name
        return table

    def _parts(self) -> "tuple[list[_Step], Window, list[_Step]]":
        for at, step in enumerate(self.steps):
            if isinstance(step.transform, Window) and self.scope == "window":
                return self.steps[:at], step.transform, self.steps[at + 1 :]
        raise Halt("operation.scope", "pipeline.run: it has no window to feed", "call run")


class _Step:
    """One transform, and where it stands in the config."""

    def __init__(self, at: int, said: Mapping[str, Any]) -> None:
        if len(said) != 1:
            what = f"config.transforms[{at}]: it has {len(said)} names"
            raise Refuse("operation.config", what, "write one, like filter: {where: age > 17}")
        [(self.name, config)] = said.items()
        self.key = f"config.transforms[{at}].{self.name}"
        kind = TRANSFORMS.get(self.name)
        if kind is None:
            near = get_close_matches(self.name, TRANSFORMS, 1)
            fix = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(TRANSFORMS)}"
            raise Refuse("operation.config", f"{self.key}: no transform is called so", fix)
        if kind is Filter and isinstance(config, str):
            config = {"where": config}
        try:
            converted = msgspec.convert(config, kind.Config)
        except msgspec.ValidationError as error:
            told, _, path = str(error).partition(" - at `$")
            place = self.key + path.rstrip("`")
            fix = f"it takes {', '.join(kind.Config.__struct_fields__)}"
            raise Refuse("operation.config", f"{place}: {told}", fix) from None
        with self.place():
            self.transform = kind(converted)

    @property
    def takes_input(self) -> bool:
        """Whether it takes another input than what the one before left."""
        return isinstance(self.transform, Join) and not self.transform.config.source

    @contextmanager
    def place(self) -> Iterator[None]:
        """Errors about its config say where that is."""
        try:
            yield
        except Refuse as error:
            raise Refuse(error.code, placed(error.message, self.key), error.fix) from None


class _StepWork:
    """What a transform is offered within another operation: rows are counted once, by that."""

    def __init__(self, work: Work, key: str, steps: int) -> None:
        self._work, self._key = work, key
        self.folder: Path = work.folder
        self.threads = work.threads
        self.memory_bytes_max = work.memory_bytes_max // steps

    @property
    def models(self) -> Models:
        return self._work.models

    def source(self, name: str) -> Source:
        return self._work.source(name)

    def advance(self, rows: int) -> None:  # noqa: ARG002  # the contract's
        self._work.advance(0)

    def quarantine(self, rows: pa.Table, reason: str) -> None:
        self._work.quarantine(rows, placed(reason, self._key))


def placed(message: str, key: str) -> str:
    """A message about ``config``, about what stands under a key in it."""
    return key + message.removeprefix("config") if message.startswith("config") else message
