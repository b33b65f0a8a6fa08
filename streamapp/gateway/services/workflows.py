"""The routes of ``/v1/workflows``: the project's files by name, and runs of them."""

import asyncio
import re
from pathlib import Path
from urllib.parse import quote

import msgspec
from aiohttp import web

from streamapp.core.errors import StreamappError
from streamapp.core.scopes import Need, Verb
from streamapp.gateway.body import read_body
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import SERVER, ProblemError, json_response
from streamapp.gateway.scopes import allowed
from streamapp.gateway.services.runs import Runs
from streamapp.gateway.services.wire import (
    Row,
    Run,
    RunAsked,
    RunError,
    RunOutput,
    WorkflowEntry,
)

#: Of the project; files in folders below are not offered.
FOLDER = "workflows"
SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,99}")
_BODY_BYTES_MAX = 65_536
#: Of a run's report, what names no place of the server.
_REPORT_KEYS = ("run", "workflow", "version", "state", "seconds")
_PART_KEYS = (
    "name", "kind", "state", "operation", "rows_in", "rows_out", "rejected", "seconds",
)  # fmt: skip
_asked = msgspec.json.Decoder(RunAsked)


class Workflows:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        config = gateway.config
        self._folder = config.project / FOLDER if config.project else None
        self._runs: Runs | None = None
        if config.runs_folder is not None:
            self._runs = Runs(config.runs_folder, gateway.clock, config.environ, config.run_s_max)

    async def open(self) -> None:
        """Note which runs ended with the gateway before this one."""
        if self._runs is not None:
            await asyncio.to_thread(self._runs.recover)

    async def close(self) -> None:
        """Stop all runs."""
        if self._runs is not None:
            await self._runs.close()

    async def index(self, _: web.Request) -> web.Response:
        """Which workflows the project has."""
        return json_response(await asyncio.to_thread(self._entries))

    async def start(self, request: web.Request) -> web.Response:
        """Queue a run: 202 and where it is."""
        file, runs = self._file(request), self._known()
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease, _BODY_BYTES_MAX)
        try:
            asked = _asked.decode(body) if body.strip() else RunAsked()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProblemError(
                400, "workflow.json", f"not a run: {error}", 'send {"params": {...}} or nothing'
            ) from None
        if wrong := [name for name in asked.params if not _NAME.fullmatch(name)]:
            raise ProblemError(400, "workflow.params", f"{wrong[0]!r} is no name", "see its file")
        run = runs.start(file.stem, file, asked.params)
        response = json_response(run, 202)
        response.headers["Location"] = _url(run)
        return response

    async def runs(self, request: web.Request) -> web.Response:
        """The workflow's runs, the newest first."""
        file = self._file(request)
        found = await asyncio.to_thread(self._known().all, file.stem)
        return json_response([_shown(request, run) for run in found])

    async def run(self, request: web.Request) -> web.Response:
        """One run, with what it wrote so far."""
        run = self._run(request)
        run.outputs = self._written(run)
        return json_response(_shown(request, run))

    async def cancel(self, request: web.Request) -> web.Response:
        """Stop a run; what its stages have finished stays in the cache."""
        run = self._run(request)
        await self._known().cancel(run)
        return json_response(self._run(request))

    async def output(self, request: web.Request) -> web.StreamResponse:
        """A file that a run wrote."""
        run, name = self._run(request), request.match_info["output"]
        if name not in {each.name for each in self._written(run)}:
            raise ProblemError(
                404,
                "workflow.output",
                f"run {run.id} wrote no {name[:120]!r}",
                f"it is {run.status}; GET {_url(run)} names its outputs",
            )
        path = self._known().outputs(run) / name
        return web.FileResponse(path, headers={**SERVER, "X-Content-Type-Options": "nosniff"})

    def _entries(self) -> list[WorkflowEntry]:
        from streamapp.workflow.graph.load import load_graph

        found = []
        for path in self._files():
            try:
                graph = load_graph(path)
            except StreamappError as error:
                # Its message names the project's files, which are not for who asks.
                told = RunError(error.code, "the file is not valid", "streamapp workflow validate")
                found.append(WorkflowEntry(path.stem, error=told))
            else:
                found.append(WorkflowEntry(path.stem, graph.version, graph.description))
        return found

    def _files(self) -> list[Path]:
        if self._folder is None or not self._folder.is_dir():
            return []
        files = (path for path in self._folder.iterdir() if path.suffix in SUFFIXES)
        return sorted(path for path in files if _NAME.fullmatch(path.stem))

    def _file(self, request: web.Request) -> Path:
        name = request.match_info["workflow"]
        files = {path.stem: path for path in self._files()}
        if name not in files:
            raise ProblemError(
                404,
                "workflow.unknown",
                f"no workflow is called {name[:120]!r}",
                f"there are {', '.join(files) or 'none'}; put its file into {FOLDER}/",
            )
        return files[name]

    def _known(self) -> Runs:
        if self._runs is None:
            raise ProblemError(404, "workflow.none", "this gateway runs no workflows", "set home")
        return self._runs

    def _run(self, request: web.Request) -> Run:
        file, run_id = self._file(request), request.match_info["run"]
        run = self._known().get(file.stem, run_id) if _NAME.fullmatch(run_id) else None
        if run is None:
            raise ProblemError(
                404, "workflow.run", f"there is no run {run_id[:120]!r}", "GET its runs"
            )
        return run

    def _written(self, run: Run) -> list[RunOutput]:
        """Files at the top of the run's folder; they are there when they are whole."""
        folder = self._known().outputs(run)
        files = folder.iterdir() if run.status == "done" and folder.is_dir() else ()
        return [
            RunOutput(path.name, f"{_url(run)}/outputs/{quote(path.name)}", path.stat().st_size)
            for path in sorted(files)
            if path.is_file() and not path.name.startswith(".")
        ]


def _shown(request: web.Request, run: Run) -> Run:
    """The run as who asks may see it; texts that name the project's files are for ``admin``."""
    if allowed(request, Need(Verb.ADMIN)):
        return run
    if run.error is not None:
        why = "the run failed; a token of scope admin is told why"
        run.error = RunError(run.error.code, why, "tell its operator")
    if run.report is not None:
        parts = [_chosen(part, _PART_KEYS) for part in run.report.get("parts", ())]
        run.report = {**_chosen(run.report, _REPORT_KEYS), "parts": parts}
    return run


def _chosen(row: Row, keys: tuple[str, ...]) -> Row:
    return {key: row[key] for key in keys if key in row}


def _url(run: Run) -> str:
    return f"/v1/workflows/{run.workflow}/runs/{run.id}"
