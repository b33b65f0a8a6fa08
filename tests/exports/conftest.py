import asyncio
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from clients import member_log
from exporting import COLUMNS, QUICK, Receiver, Source, specs

from streamapp.agents.exports.exporter import Exporter
from streamapp.core.metrics import Metrics
from streamapp.transport import open_admin


@pytest.fixture
async def receiver():
    got = Receiver()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{path:.*}", got.receive)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    got.url = f"http://127.0.0.1:{port}/hook"
    yield got
    await runner.cleanup()


@pytest.fixture(scope="session")
def made_log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "log"

    async def make():
        admin = open_admin(f"local://{folder}")
        await admin.start()
        for spec in specs():
            await admin.create(spec)
        await admin.stop()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, make()).result()
    return folder


@pytest.fixture
def log_url(made_log, tmp_path):
    """An embedded log of this test's own."""
    shutil.copytree(made_log, tmp_path / "log")
    return f"local://{tmp_path / 'log'}"


@pytest.fixture
async def log(log_url):
    async with member_log(log_url) as log:
        yield log


@pytest.fixture
def source(log):
    return Source(log)


@pytest.fixture
async def exporting(log):
    """Start an exporter of these exports; all are stopped at the end."""
    started = []

    async def start(*exports, pace=QUICK, **options):
        exporter = Exporter(
            {one.name: one for one in exports}, COLUMNS, log, Metrics(), pace=pace, **options
        )
        task = asyncio.create_task(exporter.run())
        started.append((exporter, task))
        return exporter

    yield start
    for exporter, task in started:
        await exporter.stop(5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _unproxied(monkeypatch):
    """No proxy of this machine is asked for an address of ours."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
