"""The live summary: what each process says of itself, as one table."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from io import StringIO

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, ConsoleDimensions, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from streamapp.core.clock import monotonic_s
from streamapp.core.config import Settings, gateway_url, http_url
from streamapp.core.counted import counted
from streamapp.screen.supervisor import Child

ANSWER_S_MAX = 1.0
WIDE_COLUMNS = 100
_RIGHT = {"pid", "up", "restarts"}
_END = "Ctrl-C stops everything cleanly"
_STYLES = {
    "ready": "bold green",
    "retrying": "yellow",
    "running": "green",
    "starting": "yellow",
    "waiting": "red",
    "refused": "bold red",
}


@dataclass(slots=True)
class Numbers:
    """One reading: metric name (labels summed up, ``NAME:RESULT`` apart) to value, per process."""

    at_s: float
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    ready: dict[str, bool] = field(default_factory=dict)

    def get(self, process: str, metric: str) -> float:
        """A metric's value; 0 when the process did not answer."""
        return self.values.get(process, {}).get(metric, 0.0)


def addresses(settings: Settings, extras: Collection[str] = ()) -> dict[str, str]:
    """Where each process answers ``/readyz`` and ``/metrics``.

    Args:
        settings: of all of them.
        extras: processes that run beside the usual ones: ``export``, ``ask``.
    """
    places = {
        "gateway": gateway_url(settings),
        "worker": http_url("127.0.0.1", settings.worker_port),
        "store": http_url("127.0.0.1", settings.store_port),
    }
    if settings.ring != "direct":  # else the worker is the terminal, too
        places["terminal"] = http_url("127.0.0.1", settings.terminal_port)
    for name in extras:
        places[name] = http_url("127.0.0.1", getattr(settings, f"{name}_port"))
    return places


async def read_numbers(
    session: aiohttp.ClientSession, settings: Settings, extras: Collection[str] = ()
) -> Numbers:
    """Ask all processes at once; one that does not answer is simply not ready."""
    numbers = Numbers(monotonic_s())
    places = addresses(settings, extras)
    answers = await asyncio.gather(*(_ask(session, base) for base in places.values()))
    for name, (ready, values) in zip(places, answers, strict=True):
        numbers.ready[name] = ready
        numbers.values[name] = values
    return numbers


async def wait_ready(settings: Settings, names: set[str], wait_s_max: float) -> set[str]:
    """Wait until these processes are ready; returns those that are not when time is up."""
    deadline_s = monotonic_s() + wait_s_max
    async with aiohttp.ClientSession() as session:
        while True:
            numbers = await read_numbers(session, settings)
            missing = {name for name in names if not numbers.ready[name]}
            if not missing or monotonic_s() > deadline_s:
                return missing
            await asyncio.sleep(0.1)


def render(
    children: Mapping[str, Child],
    before: Numbers,
    now: Numbers,
    settings: Settings,
    size: ConsoleDimensions,
) -> Group:
    """The table of a terminal of this size; a small one goes without what matters least.

    A narrow one has no pid, time and restarts; one that is not high enough for all lines shows
    less of where the processes are reached, then one line for each process.
    """
    ruler = Console(width=size.width, file=StringIO(), color_system=None)
    places = Padding(_places(settings), (1, 0, 0, 2), expand=False)
    end = Padding(Text(_END, style="dim"), (0, 0, 0, 2), expand=False)
    for folds, below in ((True, places), (True, end), (False, end)):
        table = _table(children, before, now, size.width, folds=folds)
        shown = Group(table, below)
        if len(ruler.render_lines(shown)) < size.height:  # the cursor stands below
            break
    return shown


def _table(
    children: Mapping[str, Child], before: Numbers, now: Numbers, columns: int, *, folds: bool
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    wide = columns >= WIDE_COLUMNS
    for title in ("process", "state", *(("pid", "up", "restarts") if wide else ())):
        table.add_column(title, justify="right" if title in _RIGHT else "left", no_wrap=True)
    table.add_column("does")
    works = _works(before, now)
    for child in children.values():
        state = _state(child, before, now)
        up_s = int(now.at_s - child.started_s)
        details = (str(child.pid), f"{up_s // 60}:{up_s % 60:02d}", str(child.restarts))
        table.add_row(
            child.name,
            Text(state, style=_STYLES.get(state, "")),
            *(details if wide else ()),
            Text(
                child.error or works.get(child.name, ""),
                no_wrap=not folds,
                overflow="fold" if folds else "ellipsis",
            ),
        )
    return table


def _places(settings: Settings) -> Text:
    scheme = "grpc+tls" if settings.flight_cert_file else "grpc"
    return Text(
        f"REST  POST {gateway_url(settings)}/ingest"
        f"\nSQL   {scheme}://{settings.flight_host}:{settings.flight_port}"
        f"\nring  {settings.ring_file}"
        f"\nnumbers count since a process started; {_END}",
        style="dim",
    )


def _state(child: Child, before: Numbers, now: Numbers) -> str:
    retries = "streamapp_retries_total"
    if not now.ready.get(child.name):
        return child.state
    return "retrying" if now.get(child.name, retries) > before.get(child.name, retries) else "ready"


def _works(before: Numbers, now: Numbers) -> dict[str, str]:
    seconds = max(now.at_s - before.at_s, 1e-9)

    def rate(process: str, metric: str) -> str:
        gained = now.get(process, metric) - before.get(process, metric)
        return f"{max(gained, 0) / seconds:,.0f}/s"

    def behind(process: str) -> str:
        lag = now.get(process, "streamapp_consumer_lag_records")
        return f"  {lag:,.0f} behind" if lag else ""

    def many(process: str, metric: str, noun: str) -> str:
        return counted(now.get(process, metric), noun)

    taken = "streamapp_ingest_events_total:received"
    refused = now.get("gateway", "streamapp_ingest_events_total:rejected")
    frames = "streamapp_ring_frames_total"
    return {
        "gateway": f"{rate('gateway', taken)} in  {many('gateway', taken, 'event')}"
        + (f"  {refused:,.0f} rejected" if refused else ""),
        "worker": f"{rate('worker', 'streamapp_enrich_events_total')} enriched"
        f"  {many('worker', 'streamapp_dead_events_total', 'dead letter')}"
        + (f"  {many('worker', frames, 'frame')}" if now.get("worker", frames) else "")
        + behind("worker"),
        "store": f"{rate('store', 'streamapp_stored_rows_total')} stored"
        f"  {many('store', 'streamapp_stored_rows_total', 'row')}"
        f"  {many('store', 'streamapp_duplicate_events_total', 'duplicate')} dropped"
        f"{behind('store')}",
        "terminal": f"{rate('terminal', frames)} mirrored"
        f"  {many('terminal', frames, 'frame')}{behind('terminal')}",
        "export": f"{rate('export', 'streamapp_export_events_total:delivered')} posted"
        f"  {many('export', 'streamapp_export_events_total:delivered', 'event')}"
        f"  {many('export', 'streamapp_export_events_total:dead', 'dead letter')}",
        "ask": f"{rate('ask', 'streamapp_asks_total')} asked"
        f"  {now.get('ask', 'streamapp_asks_total:llm'):,.0f} answered"
        f"  {now.get('ask', 'streamapp_asks_total:fallback'):,.0f} fell back",
    }


async def _ask(session: aiohttp.ClientSession, base: str) -> tuple[bool, dict[str, float]]:
    limit = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
    try:
        async with session.get(f"{base}/readyz", timeout=limit) as answer:
            ready = answer.status == 200
        async with session.get(f"{base}/metrics", timeout=limit) as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError):
        return False, {}
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            result = sample.labels.get("result")
            for name in (sample.name, f"{sample.name}:{result}"):
                values[name] = values.get(name, 0.0) + sample.value
    return ready, values
