import contextlib
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from streamapp.transport import open_admin, open_producer, open_reader

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 60


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def url(folder):
    return f"local://{folder}"


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of a given size."""
    mounted = []

    def mount(size):
        path = tmp_path / "disk"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("may not mount a small file system")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", path], check=True)


class Worker:
    """A Python program in its own process, with its output in a file."""

    def __init__(self, arguments, cwd, output):
        self.output = output
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                list(map(str, arguments)),
                cwd=cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def text(self):
        return self.output.read_text(errors="replace")

    def lines(self, word):
        return [
            line.split()[1:] for line in self.text().splitlines() if line.startswith(word + " ")
        ]

    def wait_for(self, condition, what=""):
        deadline = time.monotonic() + WAIT_S
        while not condition(self):
            assert time.monotonic() < deadline, f"no {what or condition} in:\n{self.text()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.text()}"
            time.sleep(0.02)
        return self

    def ready(self):
        return self.wait_for(lambda worker: "Worker ready" in worker.text(), "Worker ready")

    def ended(self):
        return self.process.wait(WAIT_S)

    def terminate(self):
        """SIGTERM; the exit code, after a look at how it went."""
        self.process.send_signal(signal.SIGTERM)
        code = self.ended()
        for trouble in ("Traceback", "was destroyed", "never retrieved", "never awaited"):
            assert trouble not in self.text(), self.text()
        return code

    def kill(self):
        self.process.kill()
        self.ended()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Start programs that can import streamapp and whose Faust knows its transports."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "streamapp_under_test-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: streamapp-under-test\nVersion: 0\n"
    )
    transports = project["entry-points"]["faust.transports"].items()
    entries = [f"{name} = {target}" for name, target in transports]
    (info / "entry_points.txt").write_text("\n".join(["[faust.transports]", *entries, ""]))
    path = [str(REPOSITORY), str(info.parent), str(tmp_path), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    started = []

    def start(*arguments, **environment):
        settings = [f"{name}={value}" for name, value in environment.items()]
        program = ["env", *settings, sys.executable, "-u", *arguments]
        worker = Worker(program, tmp_path, tmp_path / f"output{len(started)}")
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
def app(tmp_path, url, run):
    """Write a module with a Faust app on the log; returns how to run it."""

    def write(body, name="tested"):
        head = f"""
import asyncio, os, sys
import faust
from streamapp import transport
app = faust.App(
    "tested", broker={url!r}, topic_partitions=2, broker_commit_interval=0.1,
    web_enabled=False, datadir="faust-data", store="memory://",
)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # past Faust's redirection
"""
        (tmp_path / f"{name}.py").write_text(head + body)

        def start(verb, *options, **env):
            if verb == "worker":
                options = "-l", "info", "--without-web"
            return run("-m", "faust", "-A", name, verb, *options, **env)

        return start

    return write


@pytest.fixture
async def opened():
    """Open the three clients of a log; all are stopped at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_all(url, security=None):
            clients = [open_(url, security) for open_ in (open_admin, open_producer, open_reader)]
            for client in clients:
                await client.start()
                stack.push_async_callback(client.stop)
            return clients

        yield open_all
