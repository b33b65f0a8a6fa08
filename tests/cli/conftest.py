"""A command line in this process, and a gateway that sometimes fails."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest
from aiohttp import web

from streamapp.cli.app import main

#: What one request does instead of answering well.
Fault = str


class GatewayDouble:
    """Serves ``POST /v1/events`` on a port of its own, in a thread.

    Args:
        faults: one per request, in order of arrival; afterwards all goes well.
            ``429`` and ``503`` answer so; ``413`` too; ``drop`` closes the connection before
            anything is kept; ``lose`` keeps everything, then closes it.
        refuse: whether an event is rejected.
        token: asked for when not empty.
    """

    def __init__(
        self,
        faults: list[Fault] | None = None,
        *,
        refuse: Callable[[dict[str, Any]], bool] = lambda _event: False,
        token: str = "",
        retry_after: str = "0",
    ) -> None:
        self.kept: list[dict[str, Any]] = []
        self.requests = 0
        self.sizes: list[int] = []
        self._faults = list(faults or [])
        self._refuse = refuse
        self._token = token
        self._retry_after = retry_after
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.kept]

    def once(self) -> list[dict[str, Any]]:
        """What a store that drops repeated ids holds: first arrivals, in order."""
        return list({event["id"]: event for event in reversed(self.kept)}.values())[::-1]

    async def _start(self) -> str:
        app = web.Application()
        app.router.add_post("/v1/events", self._events)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def _events(self, request: web.Request) -> web.Response:
        self.requests += 1
        body = await request.read()
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"detail": "no"}, status=401)
        fault = self._faults.pop(0) if self._faults else ""
        if fault in {"429", "503", "413"}:
            headers = {"Retry-After": self._retry_after}
            problem = {"detail": f"told to {fault}"}
            return web.json_response(problem, status=int(fault), headers=headers)
        if fault == "drop":
            request.transport.abort()
            return web.Response()
        assert request.content_type == "application/x-ndjson"
        events = [json.loads(line) for line in body.splitlines()]
        self.sizes.append(len(events))
        reports = [self._report(line, event) for line, event in enumerate(events, 1)]
        if fault == "lose":
            request.transport.abort()
            return web.Response()
        rejected = sum(report["status"] == "rejected" for report in reports)
        status = 200 if not rejected else 207 if rejected < len(reports) else 400
        accepted = len(reports) - rejected
        return web.json_response(
            {"accepted": accepted, "rejected": rejected, "events": reports}, status=status
        )

    def _report(self, line: int, event: dict[str, Any]) -> dict[str, Any]:
        if self._refuse(event):
            report = {"line": line, "status": "rejected", "code": "event.bad"}
            return {**report, "error": f"{event['message']} is bad", "fix": ""}
        self.kept.append(event)
        return {"line": line, "status": "received", "partition": 0, "offset": len(self.kept)}


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory and home, and no settings in the environment."""
    for name in list(os.environ):  # the tests' own
        if name.startswith(("STREAMAPP_", "_STREAMAPP", "LLM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("STREAMAPP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(clean: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Result]:
    """``run("config", "show")``: what the command line said."""

    def call(*arguments: str | Path) -> Result:
        capfdbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfdbinary.readouterr()
        return Result(code, out.decode(), err.decode())

    return call


@pytest.fixture
def double() -> type[GatewayDouble]:
    return GatewayDouble
