"""Memory of the four processes, idle and loaded: PSS, so that shared pages count once; the model's weights apart.

Aim: 400 MB without weights.  Linux only (/proc/PID/smaps).
"""

import asyncio
import csv
import re
from pathlib import Path

import aiohttp
from report import report

from streamapp.cli.demo import temporary_home
from streamapp.cli.prepare import prepare
from streamapp.cli.up import PROCESSES, supervisor
from streamapp.core.config import Settings, load
from streamapp.screen.summary import read_numbers, wait_ready

MESSAGES = Path(__file__).parent.parent / "examples" / "messages.csv"
EVENTS, REQUEST = 4000, 100
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")
AIM_MB = 400


def pss_mb(pid: int, weights: str) -> tuple[float, float]:
    """(everything but weights, weights) of a process in MB."""
    own = mapped = 0
    path = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            path = found[1]
        elif line.startswith("Pss:"):
            kib = int(line.split()[1])
            if path.startswith(weights):
                mapped += kib
            else:
                own += kib
    return own / 1024, mapped / 1024


async def measure(settings: Settings) -> dict[str, dict[str, tuple[float, float]]]:
    watched = supervisor(settings)
    await watched.start()
    try:
        missing = await wait_ready(settings, set(PROCESSES), 90)
        assert not missing, missing
        weights = str(settings.models_cache)

        def sample() -> dict[str, tuple[float, float]]:
            return {name: pss_mb(child.pid, weights) for name, child in watched.children.items()}

        await send(settings, 1)  # everything is loaded and was used once
        await asyncio.sleep(1)
        idle = sample()
        sending = asyncio.create_task(send(settings, EVENTS))
        loaded = []
        async with aiohttp.ClientSession() as session:
            while (await read_numbers(session, settings)).get(
                "store", "streamapp_stored_rows_total"
            ) < EVENTS:
                loaded.append(sample())
                await asyncio.sleep(0.5)
        await sending
        peak = {name: max(s[name] for s in loaded) for name in PROCESSES}
        return {"idle": idle, "loaded": peak}
    finally:
        await watched.stop()


async def send(settings: Settings, count: int) -> None:
    with MESSAGES.open(encoding="utf-8") as lines:
        texts = [row["message"] for row in csv.DictReader(lines)]
    url = f"http://127.0.0.1:{settings.gateway_port}/v1/events"
    headers = {"Authorization": f"Bearer {settings.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for first in range(0, count, REQUEST):
            body = [
                {"message": f"{texts[n % len(texts)]} {n}", "conversation_id": f"c{n % 200}"}
                for n in range(first, min(first + REQUEST, count))
            ]
            async with session.post(url, json=body) as answer:
                assert answer.status == 200, await answer.text()


def main() -> None:
    settings, _ = load()
    with temporary_home(settings, keep=False) as own:
        prepare(own)
        found = asyncio.run(measure(own))
    table = [["", "idle MB", "loaded MB", "weights MB"]]
    for name in PROCESSES:
        idle, loaded = found["idle"][name], found["loaded"][name]
        table.append([name, f"{idle[0]:.0f}", f"{loaded[0]:.0f}", f"{loaded[1]:.0f}"])
    totals = {kind: sum(own for own, _ in found[kind].values()) for kind in ("idle", "loaded")}
    weights = sum(mapped for _, mapped in found["loaded"].values())
    table.append(["all", f"{totals['idle']:.0f}", f"{totals['loaded']:.0f}", f"{weights:.0f}"])
    ratios = {f"{kind}_vs_aim_of_{AIM_MB}_mb": total / AIM_MB for kind, total in totals.items()}
    report("footprint", table, ratios, {"pss_mb": found})


if __name__ == "__main__":
    main()
