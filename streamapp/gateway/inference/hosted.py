"""The registry's models in this process: opened when first asked for, off the event loop."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from streamapp.core.clock import Clock
from streamapp.core.errors import Halt, Refuse, Reject, Retry
from streamapp.core.metrics import Metrics
from streamapp.gateway.problem import RETRY_AFTER, ProblemError
from streamapp.models.manifest import Manifest
from streamapp.models.serving.arrivals import Arrivals
from streamapp.models.session import Array, Tensor, parse_signature

if TYPE_CHECKING:  # a gateway that nobody asks for a model loads none of that
    from streamapp.models import Registry
    from streamapp.models.serving.server import Server

#: How often aliases and routes are looked at again.
REFRESH_S = 1.0
#: How often servers of remote models are asked whether they answer.
AWAY_S = 5.0
_SILENT = "its server does not answer"
#: Rows of one call; a request may not have more.
BATCH_ROWS_MAX = 256
#: What ``manifest.format`` is called by this protocol's clients.
PLATFORMS = {"onnx": "onnxruntime_onnx", "openvino": "openvino"}
_UNKNOWN = frozenset({"models.unknown", "models.alias", "models.task"})
#: Rejects in the words of a runtime, a user's function or another server: not for who asks.
_NOT_OURS = frozenset({"models.run", "models.function", "models.remote"})
T = TypeVar("T")
_log = logging.getLogger("streamapp.gateway")


class Hosted:
    """Models by name; those that are asked for together run together (``serving.Server``).

    Args:
        models: makes the registry; called once, at the first request.
        bytes_max: memory of all models together; 0: no limit.
        metrics: of this process.
        clock: for how often aliases are looked at.
    """

    def __init__(
        self,
        models: "Callable[[], Registry] | None",
        bytes_max: int,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._bytes_max = bytes_max
        self._make = models
        self._metrics = metrics
        self._clock = clock
        self._registry: Registry | None = None
        self._server: Server | None = None
        self._refreshed_s = float("-inf")
        self._asked_s = float("-inf")
        self._seen: Mapping[str, str] = {}
        self._asking = asyncio.Lock()
        self._arrivals = Arrivals()
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "streamapp-models")

    async def manifest(self, name: str, version: str = "") -> Manifest:
        """What is declared of a model.

        Raises:
            ProblemError: 404 there is none, 503 the declarations are wrong.
        """
        with _refusals():
            if self._registry is not None and not self._is_due():
                return self._find(name, version)  # it is in memory
        return await self._in_thread(self._find, name, version)

    async def versions(self, manifest: Manifest) -> list[Manifest]:
        """All versions of that model, the newest last."""
        path = f"{manifest.task}/{manifest.name}"
        return await self._in_thread(lambda: self._known().catalogue.versions(path))

    async def index(self) -> list[tuple[str, str, str]]:
        """Name, version, and why it cannot be asked for ("": it can) of each version there is."""
        away = await self._away()

        def look() -> list[tuple[str, str, str]]:
            known = self._known()
            found = {one.full_name: _SILENT * (one.full_name in away) for one in known.list()}
            for name in found:
                if not known.status(name).pulled:
                    found[name] = "its files are not here: streamapp models pull"
            for name in known.catalogue.broken:
                if name.rpartition("@")[2].isdigit():
                    found.setdefault(name, "its manifest is wrong: streamapp models list")
            parts = ((name.partition("@"), why) for name, why in sorted(found.items()))
            return [(name, version, why) for (name, _, version), why in parts]

        return await self._in_thread(look)

    async def is_ready(self, manifest: Manifest) -> bool:
        """Whether the model's files are here; a function is opened, and a server is asked."""
        if manifest.remote is not None:
            return manifest.full_name not in await self._away()

        def look() -> bool:
            if manifest.format == "function":
                self._serving().load(manifest.full_name)
            return self._known().status(manifest.full_name).pulled

        try:
            return await self._in_thread(look)
        except ProblemError as error:
            if error.status != 503:
                raise
            return False  # why is in the log

    async def signature(self, manifest: Manifest) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Inputs and outputs; the model is opened where the manifest does not say them."""
        if manifest.inputs and manifest.outputs:
            return parse_signature(manifest.inputs), parse_signature(manifest.outputs)
        session = await self._in_thread(lambda: self._serving().load(manifest.full_name))
        return session.inputs, session.outputs

    async def run(
        self, manifest: Manifest, feeds: Mapping[str, Array], outputs: Sequence[str] | None
    ) -> dict[str, Array]:
        """The outputs of a model, in one call with others that are asked for at the same time.

        Raises:
            Reject: the feeds are not what it takes.
            ProblemError: 503 it cannot be opened, is away, or has too much to do; 500 it gave what
                it does not declare.
        """
        server = self._server
        if server is None:
            server = await self._in_thread(self._serving)
        with _refusals():
            return await self._arrivals.of(server.submit(manifest.full_name, feeds, outputs))

    async def close(self) -> None:
        """Answer what was taken, and free the models; once is enough."""
        if self._is_closed:
            return
        self._is_closed = True

        def free() -> None:
            if self._server is not None:
                self._server.close()
            if self._registry is not None:
                self._registry.close()

        await asyncio.get_running_loop().run_in_executor(self._thread, free)
        self._thread.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        with _refusals():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, function, *arguments)

    async def _away(self) -> Mapping[str, str]:
        """Remote models whose servers do not answer, seen a moment ago at most."""
        known = await self._in_thread(self._known)
        async with self._asking:  # those who ask at once wait for one look
            if self._clock.monotonic_s() - self._asked_s >= AWAY_S:
                self._seen = await asyncio.to_thread(known.away)
                self._asked_s = self._clock.monotonic_s()
        return self._seen

    def _is_due(self) -> bool:
        return self._clock.monotonic_s() - self._refreshed_s >= REFRESH_S

    def _known(self) -> "Registry":
        """The registry, as its files are now."""
        if self._make is None:
            raise Refuse("models.unknown", "this gateway serves no models", "ask another one")
        if self._registry is None:
            self._registry = self._make()
            self._registry.warn()
            self._refreshed_s = self._clock.monotonic_s()
        elif self._is_due():
            self._refreshed_s = self._clock.monotonic_s()
            try:
                self._registry.refresh()
            except Refuse as error:  # which is no reason to answer nobody
                _log.warning("models stay as they are: %s", error)
        return self._registry

    def _find(self, name: str, version: str) -> Manifest:
        return self._known().manifest(f"{name}@{version}" if version else name)

    def _serving(self) -> "Server":
        from streamapp.models.serving.policy import Policy
        from streamapp.models.serving.server import Server

        if self._server is None:
            policy = Policy(batch_rows_max=BATCH_ROWS_MAX)
            self._server = Server(
                self._known(), lambda _: policy, self._bytes_max, self._metrics, self._clock
            )
        return self._server


@contextmanager
def _refusals() -> Iterator[None]:
    """What is wrong with a model, in words for who asked: its messages may have paths."""
    try:
        yield
    except Retry as error:
        _log.warning("%s", error)
        what = "the model does not take requests now"
        raise ProblemError(503, error.code, what, "send it again", RETRY_AFTER) from None
    except Reject as error:
        if error.code not in _NOT_OURS:
            raise
        _log.warning("%s", error)
        what = "the model cannot run on this input"
        raise ProblemError(
            400, error.code, what, "correct the input, or tell its operator"
        ) from None
    except Refuse as error:
        if error.code in _UNKNOWN:
            raise ProblemError(404, error.code, error.message[:300], error.fix) from None
        _log.error("%s", error)
        what = "the model cannot be served now"
        raise ProblemError(503, error.code, what, "tell its operator", RETRY_AFTER) from None
    except Halt as error:  # the model's fault, and no reason for the gateway to end
        _log.error("%s", error)
        what = "the model gave what it does not declare"
        raise ProblemError(500, error.code, what, "tell its operator") from None
