"""Faust apps as real processes: started, listened to, ended; and what they say, as JSON."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
WAIT_S = 60
#: What an orderly process never prints.
TROUBLE = ("Traceback", "was destroyed", "never retrieved", "never awaited")
_SAID = re.compile(rb"\x1e(\w+) (\{.*\})\n")


class Worker:
    """A process whose output goes to a file.

    Its program says things as lines of a record separator, a word and a JSON object, among
    whatever it logs.
    """

    def __init__(self, arguments, cwd, output):
        self.output = output
        self._heard = defaultdict(list)
        self._heard_bytes = 0
        with output.open("wb") as out:
            self.process = subprocess.Popen(
                list(map(str, arguments)), cwd=cwd, stdout=out, stderr=subprocess.STDOUT
            )

    def text(self):
        return self.output.read_text(errors="replace")

    def story(self):
        """What it logged, and the last it said of each kind."""
        self.said("")
        said = [
            f"{len(all_)} {word}, last {all_[-1]}" for word, all_ in self._heard.items() if all_
        ]
        return "\n".join([re.sub(r"\x1e.*\n", "", self.text()), *said])

    def said(self, word):
        """Everything said with this word so far, in order."""
        with self.output.open("rb") as output:
            output.seek(self._heard_bytes)
            news = output.read()
        news = news[: news.rfind(b"\n") + 1]
        self._heard_bytes += len(news)
        for said, what in _SAID.findall(news):
            self._heard[said.decode()].append(json.loads(what))
        return self._heard[word]

    async def until(self, condition, what="what was awaited"):
        """Wait for a condition of this worker, which must stay alive."""
        deadline = time.monotonic() + WAIT_S
        while not (value := condition(self)):
            assert time.monotonic() < deadline, f"no {what} in:\n{self.story()}"
            assert self.process.poll() is None, f"ended before {what}:\n{self.story()}"
            await asyncio.sleep(0.02)
        return value

    async def until_said(self, word, count=1):
        """What was said with this word, once there are that many."""
        await self.until(lambda worker: len(worker.said(word)) >= count, f"{count} {word}")
        return self.said(word)

    async def ready(self):
        await self.until(lambda worker: "Worker ready" in worker.text(), "Worker ready")
        return self

    async def ended(self):
        """The exit code."""
        deadline = time.monotonic() + WAIT_S
        while (code := self.process.poll()) is None:
            assert time.monotonic() < deadline, f"still running:\n{self.story()}"
            await asyncio.sleep(0.02)
        return code

    async def terminate(self):
        """SIGTERM; the exit code, after a look at how it went."""
        self.process.send_signal(signal.SIGTERM)
        code = await self.ended()
        assert not self.trouble(), self.story()
        return code

    def trouble(self):
        """What it printed that an orderly process never does."""
        text = self.text()
        return [trouble for trouble in TROUBLE if trouble in text]

    async def kill(self):
        self.process.kill()
        await self.ended()


def site(folder):
    """A folder for PYTHONPATH by which Faust finds the transports of this tree."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    info = folder / "streamapp_under_test-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: streamapp-under-test\nVersion: 0\n"
    )
    groups = {
        name: entries
        for name, entries in project["entry-points"].items()
        if name.startswith("faust.")
    }
    lines = []
    for name, entries in groups.items():
        lines += [f"[{name}]", *(f"{entry} = {target}" for entry, target in entries.items())]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    return folder


@pytest.fixture
def run(tmp_path):
    """Start Python programs that can import streamapp and whose Faust knows its transports."""
    folder = site(tmp_path / "site")
    started = []

    def start(*arguments, path=(), **environment):
        places = [REPOSITORY, folder, tmp_path, *path, os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, map(str, places)))
        settings = [f"{name}={value}" for name, value in environment.items()]
        output = tmp_path / f"output{len(started)}"
        worker = Worker(["env", *settings, sys.executable, "-u", *arguments], tmp_path, output)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait(WAIT_S)
