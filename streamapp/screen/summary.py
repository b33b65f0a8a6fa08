"""The live summary: what each process says of itself, as one table."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group
from rich.table import Table
from rich.text import Text

from streamapp.core.clock import monotonic_s
from streamapp.core.config import Settings
from streamapp.screen.supervisor import Child

ANSWER_S_MAX = 1.0
_STYLES = {"running": "green", "starting": "yellow", "waiting": "red", "refused": "bold red"}


@dataclass(slots=True)
class Numbers:
    """One reading: metric name (labels summed up) to value, per process, and what is ready."""

    at_s: float
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    ready: dict[str, bool] = field(default_factory=dict)

    def get(self, process: str, metric: str) -> float:
        """A metric's value; 0 when the process did not answer."""
        return self.values.get(process, {}).get(metric, 0.0)


def addresses(settings: Settings) -> dict[str, str]:
    """Where each process answers ``/readyz`` and ``/metrics``."""
    local = "http://127.0.0.1"

    return {
        "gateway": f"{local}:{settings.gateway_port}",
        "worker": f"{local}:{settings.worker_port}",
        "store": f"{local}:{settings.store_port}",
        "terminal": f"{local}:{settings.terminal_port}",
    }


async def read_numbers(session: aiohttp.ClientSession, settings: Settings) -> Numbers:
    """Ask all processes at once; one that does not answer is simply not ready."""
    numbers = Numbers(monotonic_s())
    places = addresses(settings)
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
    children: Mapping[str, Child], before: Numbers, now: Numbers, settings: Settings
) -> Group:
    """The table of a terminal screen."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for title in ("process", "state", "pid", "up", "restarts", "does"):
        table.add_column(title, justify="right" if title in {"pid", "up", "restarts"} else "left")
    works = _works(before, now)
    for child in children.values():
        state = "ready" if now.ready.get(child.name) else child.state
        style = "bold green" if state == "ready" else _STYLES.get(state, "")
        up_s = int(now.at_s - child.started_s)
        table.add_row(
            child.name,
            Text(state, style=style),
            str(child.pid),
            f"{up_s // 60}:{up_s % 60:02d}",
            str(child.restarts),
            child.error or works.get(child.name, ""),
        )
    where = Text(
        f"\n  POST http://{settings.gateway_host}:{settings.gateway_port}/ingest"
        f"   SQL grpc://{settings.flight_host}:{settings.flight_port}"
        f"   ring {settings.ring_file}\n  Ctrl-C stops everything cleanly",
        style="dim",
    )
    return Group(table, where)


def _works(before: Numbers, now: Numbers) -> dict[str, str]:
    seconds = max(now.at_s - before.at_s, 1e-9)

    def rate(process: str, metric: str) -> str:
        gained = now.get(process, metric) - before.get(process, metric)
        return f"{max(gained, 0) / seconds:,.0f}/s"

    def behind(process: str) -> str:
        lag = now.get(process, "streamapp_consumer_lag_records")
        return f"  {lag:,.0f} behind" if lag else ""

    return {
        "gateway": f"{rate('gateway', 'streamapp_ingest_events_total')} in"
        f"  {now.get('gateway', 'streamapp_ingest_events_total'):,.0f} events",
        "worker": f"{rate('worker', 'streamapp_enrich_events_total')} enriched"
        f"  {now.get('worker', 'streamapp_dead_events_total'):,.0f} dead letters{behind('worker')}",
        "store": f"{rate('store', 'streamapp_stored_rows_total')} stored"
        f"  {now.get('store', 'streamapp_stored_rows_total'):,.0f} rows"
        f"  {now.get('store', 'streamapp_duplicate_events_total'):,.0f} duplicates dropped"
        f"{behind('store')}",
        "terminal": f"{rate('terminal', 'streamapp_ring_frames_total')} mirrored"
        f"  {now.get('terminal', 'streamapp_ring_frames_total'):,.0f} frames{behind('terminal')}",
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
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
    return ready, values
