"""Models whose names may change hands while a worker runs.

A stage gets a handle and keeps it.  When an alias or a route leads elsewhere, the other model is
opened and warmed up in a thread while the one before goes on; then the handle changes, but only in
``turn``, which the Plan calls between two batches.  So all stages of a batch use the same models,
and what changes changes at one offset.
"""

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Refuse, Retry, StreamappError
from streamapp.core.metrics import Metrics
from streamapp.models.registry import Registry
from streamapp.models.serving.warming import warm

if TYPE_CHECKING:
    from streamapp.models.routing.router import Router

_log = logging.getLogger("streamapp")

#: How often routes and aliases are looked at.
LOOK_S = 1.0
#: What a model may differ in and what not: columns and stages were made for these.
_SAME = {
    "embedder": ("dim", "embed_sparse"),
    "classifier": ("labels", "embedder"),
    "extractor": ("labels",),
}


class Handle:
    """Stands for whatever serves a name now; everything but ``turn`` is that model's own."""

    def __init__(self, kind: str, name: str | None, model: Any) -> None:
        self._kind, self._name = kind, name
        self._model = model

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._model, attribute)

    def __repr__(self) -> str:
        return f"Handle({self._name or 'default'}: {self._model.ref})"


class Live:
    """What stages get as ``Models`` in a process that runs for long.

    Args:
        registry: opens models, and reads routes and aliases again when they change.
        metrics: counts changes.
        clock: for the tests.
    """

    def __init__(
        self,
        registry: Registry,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.registry = registry
        self._metrics = metrics
        self._clock = clock
        self._looked_s = clock.monotonic_s()
        self._handles: dict[tuple[str, str | None], Handle] = {}
        self._targets: dict[tuple[str, str | None], str] = {}
        self._opening: dict[tuple[str, str | None], tuple[str, Future[Any]]] = {}
        self._prepared: dict[tuple[str, str | None], Future[None]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.registry, attribute)

    def embedder(self, name: str | None = None) -> Any:
        """As ``Registry.embedder``, as a handle."""
        return self._handle("embedder", name)

    def classifier(self, name: str | None = None) -> Any:
        """As ``Registry.classifier``, as a handle."""
        return self._handle("classifier", name)

    def extractor(self, name: str | None = None) -> Any:
        """As ``Registry.extractor``, as a handle."""
        return self._handle("extractor", name)

    def router(self, name: str) -> "Router":
        """As ``Registry.router``, over handles."""
        from streamapp.models.routing.registered import router_of

        def count(route: str, model: str, why: str, rows: int) -> None:
            if self._metrics is not None:
                self._metrics.route_answers.labels(route, model, why).inc(rows)

        def shadowed(route: str, model: str, result: str, rows: int) -> None:
            if self._metrics is not None:
                self._metrics.route_shadows.labels(route, model, result).inc(rows)

        return router_of(cast("Registry", self), name, self._clock, count, shadowed)

    def prepare(self, kind: str, names: Iterable[str]) -> bool:
        """Open and warm up models that will be asked for, in the thread; True when all were tried.

        What was wrong with one is said when it is asked for.
        """
        wanted = [(kind, name) for name in names if (kind, name) not in self._handles]
        for key in wanted:
            if key not in self._prepared:
                self._prepared[key] = self._opener().submit(self._prepare, *key)
        return all(self._prepared[key].done() for key in wanted)

    def attempt(self, kind: str, name: str) -> Handle | None:
        """A model that is open and warm; None while the thread opens it.

        Raises:
            Refuse, Retry: it could not be opened; the next call tries again.
        """
        key = kind, name
        if key not in self._handles:
            if not self.prepare(kind, [name]):
                return None
            error = self._prepared[key].exception()
            if error is not None:
                del self._prepared[key]
                if isinstance(error, Refuse | Retry):
                    raise error
                raise Retry("models.open", f"{name}: {error!r}") from error
        return self._handle(kind, name)

    def turn(self) -> bool:
        """Between two batches: look for changes, and make those that are ready.

        Never waits and never raises: what cannot be opened is logged and counted, and the model
        before stays.  True when a handle changed.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._look()
        # Several names that lead to one model change together.
        if not self._opening or not all(found.done() for _, found in self._opening.values()):
            return False
        changed = [self._change(key) for key in list(self._opening)]
        return any(changed)

    def close(self) -> None:
        """End the thread that opens."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _handle(self, kind: str, name: str | None) -> Handle:
        key = kind, name
        if key not in self._handles:
            self._prepared.pop(key, None)
            model = getattr(self.registry, kind)(name)
            self._handles[key] = Handle(kind, name, model)
            self._targets[key] = self._target(key, model)
        return self._handles[key]

    def _target(self, key: tuple[str, str | None], model: Any) -> str:
        """The full name that a name leads to now; of a user's own model the file's."""
        kind, name = key
        if model is not None and model.ref.version == 0:
            return str(model.ref)
        task = {"embedder": "embed", "classifier": "classify", "extractor": "entities"}[kind]
        return self.registry.manifest(name, None if name else task).full_name

    def _look(self) -> None:
        try:
            if not self.registry.refresh():
                return
        except StreamappError as error:
            _log.warning("models stay as they are: %s", error)
            self._count("refused")
            return
        for key, handle in self._handles.items():
            if handle.ref.version == 0:
                continue
            with suppress(Refuse):  # nothing has that name any more: who has it keeps it
                self._follow(key, self._target(key, None))

    def _follow(self, key: tuple[str, str | None], target: str) -> None:
        under_way = self._opening.get(key)
        if under_way and under_way[0] == target:
            return
        if under_way:
            under_way[1].cancel()
            del self._opening[key]
        if target == self._targets[key]:
            return
        _log.info("%s: opening %s", key[1] or "the default", target)
        opened = self._opener().submit(self._opened, key, target)
        self._opening[key] = target, opened

    def _opener(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="streamapp-models")
        return self._thread

    def _prepare(self, kind: str, name: str) -> None:
        warm(kind, getattr(self.registry, kind)(name))

    def _opened(self, key: tuple[str, str | None], target: str) -> Any:
        """In the thread: the model, warm, and fit to take the other's place."""
        kind = key[0]
        open_: Callable[[str], Any] = getattr(self.registry, kind)
        model, before = open_(target), self._handles[key]
        for attribute in _SAME[kind]:
            has, had = _told(model, attribute), _told(before, attribute)
            if has != had:
                raise Refuse(
                    "models.swap",
                    f"{target} has {attribute} {has}, {before.ref} has {had}",
                    "name it in the workflow and restart, so that columns are made for it",
                )
        warm(kind, model)
        return model

    def _change(self, key: tuple[str, str | None]) -> bool:
        target, opened = self._opening.pop(key)
        error = opened.exception()
        if error is not None:
            _log.warning("%s stays %r: %s", key[1] or "the default", self._handles[key], error)
            self._count("refused")
            return False
        handle = self._handles[key]
        _log.info("%s is %s now, it was %s", key[1] or "the default", target, handle.ref)
        before, self._targets[key] = self._targets[key], target
        handle._model = opened.result()  # noqa: SLF001  # no public way: only a turn may do it
        if before not in self._targets.values():
            self.registry.forget(before)
        self._count("changed")
        return True

    def _count(self, result: str) -> None:
        if self._metrics is not None:
            self._metrics.model_swaps.labels(result).inc()


def _told(model: Any, attribute: str) -> Any:
    """What an attribute is; of a method, whether there is one."""
    found = getattr(model, attribute, None)
    return callable(found) if callable(found) or found is None else found


def live(registry: Registry, metrics: Metrics | None = None) -> Registry:
    """A registry whose models follow their names, for who asks for a registry."""
    registry.warn()
    return cast("Registry", Live(registry, metrics))
