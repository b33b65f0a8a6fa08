"""What a run would do, and why, without doing it."""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from streamapp.core.clock import now_us
from streamapp.workflow.data import Opened
from streamapp.workflow.graph.spec import Step
from streamapp.workflow.run.asked import identity, make_models
from streamapp.workflow.run.binding import Binding
from streamapp.workflow.run.cache import Cache, Entry
from streamapp.workflow.run.calling import joined
from streamapp.workflow.run.engine import Services
from streamapp.workflow.run.keys import (
    Key,
    content_of,
    key_of,
    opened_key,
    same_models,
    why_again,
    why_models,
)
from streamapp.workflow.run.sizing import Measured, size, stage_name

Will = Literal["read", "use", "run", "maybe run", "write"]


class Planned(msgspec.Struct, frozen=True):
    """What would become of one part.

    Args:
        will: ``use`` what is in the cache; ``maybe run``: when what it takes turns out to differ.
        rows: that it takes; None: not known before something else has run.
        workers: processes or threads.
        calls: of its operation.
        memory_mb: that it is expected to hold.
        seconds: that it is expected to take; None: it has not run before.
    """

    name: str
    kind: str
    operation: str
    will: Will
    why: str
    takes: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    rows: int | None = None
    workers: int | None = None
    calls: int | None = None
    memory_mb: int | None = None
    seconds: float | None = None


def preview(binding: Binding, services: Services) -> list[Planned]:
    """What a run of a bound workflow would do, in an order in which it may."""
    return list(_Preview(binding, services).parts())


class _Preview:
    def __init__(self, binding: Binding, services: Services) -> None:
        self._binding, self._services = binding, services
        self._cache = Cache(services.cache)
        self._known: dict[str, Entry] = {}
        self._models: Any = None

    def parts(self) -> Iterable[Planned]:
        for name, opened in self._binding.inputs.items():
            yield self._read("input", name, name, opened)
        for name, opened in self._binding.sources.items():
            yield self._read("source", name, f"source:{name}", opened)
        for name in self._binding.order:
            yield self._stage(self._binding.graph.step(name))
        for name, output in self._binding.graph.outputs.items():
            form = output.format or ""
            yield Planned(name, "output", form, "write", "", (output.source,))

    def _read(self, kind: str, name: str, node: str, opened: Opened) -> Planned:
        key = opened_key(opened, now_us() * 1_000)
        entry = self._cache.find(key) if key else None
        columns = _columns(opened.schema())
        if entry is not None:
            self._known[node] = entry
            return Planned(
                name, kind, opened.format, "use", "it did not change", (), columns, entry.rows
            )
        why = "it was not read before" if key else "whether it changed cannot be seen"
        return Planned(name, kind, opened.format, "read", why, (), columns)

    def _stage(self, step: Step) -> Planned:
        binding = self._binding
        calls = binding.calls[step.name]
        label = f"{calls[0].operation}@{calls[0].kind.version}"
        takes = binding.graph.takes(step)
        sources = {name for call in calls for name in call.sources}
        columns = _columns(binding.schemas[step.name])
        waits = [n for n in (*takes, *(f"source:{s}" for s in sources)) if n not in self._known]
        plain = Planned(step.name, "stage", label, "run", "", takes, columns)
        if waits:
            why = f"{', '.join(wait.removeprefix('source:') for wait in waits)} may differ"
            return msgspec.structs.replace(plain, will="maybe run", why=why)
        keys = [
            key_of(
                call,
                {name: content_of(self._known[name].parts) for name in takes},
                {s: content_of(self._known[f"source:{s}"].parts) for s in call.sources},
            )
            for call in calls
        ]
        entries = [self._cache.find(key.digest) for key in keys]
        found = [entry for entry in entries if entry is not None]
        stale = next((why for entry in found if (why := self._stale(entry))), "")
        if len(found) == len(keys) and not stale:
            self._known[step.name] = joined(found)
            why = "nothing that it depends on changed"
            return msgspec.structs.replace(plain, will="use", why=why, rows=self._rows(takes))
        name = stage_name(binding.graph.name, step.name, calls[0].operation)
        why = stale or why_again(self._cache.load("last", name, Key), keys[0])
        return self._sized(msgspec.structs.replace(plain, why=why), step, name)

    def _stale(self, entry: Entry) -> str:
        """Why a result is not what the models of now would give; empty where it is."""
        if not entry.models:
            return ""
        if self._models is None:
            folder = self._binding.graph.folder.absolute()
            self._models = make_models(self._services.models, folder, self._services.environ)
        now = {what: identity(self._models, what) for what in entry.models}
        same = same_models(entry.models, now)
        return "" if same else why_models(entry.models, now)

    def _rows(self, takes: tuple[str, ...]) -> int:
        return self._known[takes[0]].rows if takes else 0

    def _sized(self, plain: Planned, step: Step, name: str) -> Planned:
        call = self._binding.calls[step.name][0]
        rows = self._rows(plain.takes)
        bytes_ = sum(part.bytes for taken in plain.takes for part in self._known[taken].parts)
        measured = self._cache.load("measured", name, Measured)
        given = size(
            call.scope,
            call.parallel,
            step.resources,
            self._services.limits(),
            rows,
            bytes_,
            measured,
        )
        seconds = measured.seconds_per_row * rows / given.workers if measured else None
        return msgspec.structs.replace(
            plain,
            rows=rows,
            workers=given.workers,
            calls=len(given.cuts) * len(self._binding.calls[step.name]),
            memory_mb=given.memory_bytes >> 20,
            seconds=seconds,
        )


def _columns(schema: Any) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}
