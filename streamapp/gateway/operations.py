"""What an operator's tools ask: alive, ready, metrics.

Open to whoever reaches the port, also with a token set: probes and scrapers carry none, and the
answers hold counts and topic names, no event.
"""

import asyncio
from typing import Any

from aiohttp import web

from streamapp.core.errors import StreamappError
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import SERVER, json_response

PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_LOG_S_MAX = 2.0
#: The routes are open, so what they ask of the log is asked once in this time at most.
_LOG_ASKED_EVERY_S = 1.0
_METRICS = {**SERVER, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The routes in ``PATHS``."""
    operations = Operations(gateway)
    return [
        web.get("/healthz", operations.healthz),
        web.get("/readyz", operations.readyz),
        web.get("/metrics", operations.metrics),
    ]


class Operations:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._log_asked_s = float("-inf")
        self._log_state = "ok"
        self._asking = asyncio.Lock()

    async def healthz(self, _: web.Request) -> web.Response:
        """200 while the event loop turns."""
        return json_response({"status": "ok"})

    async def readyz(self, _: web.Request) -> web.Response:
        """200 when events would be taken now, else 503; each check says ``ok`` or what is wrong."""
        life, silence = self._gateway.life, self._gateway.delivery.silence()
        checks: dict[str, Any] = {
            "serving": "draining" if life.draining else "ok",
            "log": silence or "ok",
            "topics": await self._topics(),
        }
        ready = all(state == "ok" for state in checks.values())
        return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus's text format."""
        return web.Response(body=self._gateway.metrics.text(), headers=_METRICS)

    async def _topics(self) -> str:
        """``ok`` when the log has every topic that we may write to."""
        gateway = self._gateway
        if gateway.admin is None:
            return "ok"
        async with self._asking:
            if gateway.clock.monotonic_s() - self._log_asked_s >= _LOG_ASKED_EVERY_S:
                try:
                    async with asyncio.timeout(_LOG_S_MAX):
                        missing = sorted(set(gateway.targets) - set(await gateway.admin.topics()))
                    wrong = f"{', '.join(missing)} missing: run `streamapp topics apply`"
                    self._log_state = wrong if missing else "ok"
                except TimeoutError:
                    self._log_state = f"the log did not answer within {_LOG_S_MAX:g} s"
                except StreamappError as error:
                    self._log_state = error.code
                self._log_asked_s = gateway.clock.monotonic_s()
        return self._log_state
