"""A machine's processes one by one, on any log: several workers among them, and nobody restarts what dies.

The stages are cheap and the same for every batch shape; ``vectors`` is slow, so that a kill lands
in it, and can be held there.
"""

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple

from machine import Machine, free_ports, freeze, stop, wait_for

from streamapp.core.errors import Retry
from streamapp.topics.catalogue import RAW, defaults
from streamapp.transport import Outgoing, open_producer

_STAGE = '''
import hashlib, os, time
from pathlib import Path
import numpy as np
from streamapp.plugin import BaseStage, Reject, float32_vector, vector_column

class Vectors(BaseStage):
    """A direction per text; refuses what is called poison; waits while the file ``hold`` is there."""

    name = "vectors"
    reads = ("text",)
    writes = {"embedding": float32_vector(4)}

    def enrich(self, batch):
        time.sleep(self.options["seconds"])
        hold = Path(self.options["hold"])
        while hold.exists():
            hold.with_name(f"held-{os.getpid()}").touch()
            time.sleep(0.01)
        texts = [text or "" for text in batch.strings("text")]
        if any("poison" in text for text in texts):
            raise Reject("vectors.poison", "a text is poison", "")
        digests = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
        return {"embedding": vector_column(np.array([[*d] for d in digests], np.float32) - 127.5)}
'''
_WORKFLOW = """
[workflow]
stages = ["vectors", "kinetics"]

[stages.vectors]
seconds = {seconds}
hold = "{hold}"
"""
#: What a fleet is made of when nothing is the matter.
BASE = ("store", "terminal", "worker")
#: What comes on top of Machine's processes, for as long as a scenario needs it.
GUESTS = ("worker2", "worker3")


class Fleet(Machine):
    """Processes that the test itself starts, kills, freezes and stops.

    Args:
        home: of all of them; each process has its own folder below, as on a host of its own.
        broker: the log's URL.
        stage_s: what the slow stage takes for a batch.
        settings: as ``STREAMAPP_*``.
    """

    def __init__(self, home, broker, *, stage_s=0.03, **settings):
        home = Path(home)
        self.broker = broker
        self.hold = home / "hold"
        small = {"session_s": 3, "snapshot_records": 15, "batch_events_max": 64, "drain_s": 12}
        super().__init__(
            home,
            broker=broker,
            topics_dir=home / "topics",
            log_level="info",
            **{"ring_frames": 1 << 18, **small, **settings},
        )
        self.ports |= dict(zip(GUESTS, free_ports(len(GUESTS)), strict=True))
        path = [str(_site(home)), os.environ.get("PYTHONPATH", "")]
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        _topics(home / "topics", stage_s, self.hold)
        self.processes = {}
        self.run("topics", "apply")

    def run(self, *arguments):
        """A command of ours, to its end."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "streamapp.cli", *arguments],
            env=self.env, cwd=self.home, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def launch(self, name):
        """Start a process and return at once."""
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        program = name.rstrip("0123456789")
        port = {f"STREAMAPP_{program.upper()}_PORT": str(self.ports[name])}
        with (folder / "output").open("ab") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", "streamapp.cli", program],
                env={**self.env, **port, "STREAMAPP_HOME": str(folder)},
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def start(self, *names):
        """Start processes, and return when they are ready."""
        for name in names:
            self.launch(name)
        self.is_ready(*names)

    def is_ready(self, *names):
        """Return when launched processes are ready."""
        for name in names:
            wait_for(lambda name=name: self.ready(name) or not self.runs(name), f"{name} to start")
            assert self.runs(name), self.tail(name)

    def settle(self):
        """Run what a fleet is made of, and nothing else."""
        for name in set(self.processes) - set(BASE):
            assert self.terminate(name) == {0}, self.tail(name)
        self.start(*(name for name in BASE if not self.runs(name)))

    def runs(self, name):
        return name in self.processes and self.processes[name].poll() is None

    def nobody_died(self):
        """Every process that the test did not end is there."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended by itself:\n{self.tail(name)}"

    def signal(self, name, number):
        self.processes[name].send_signal(number)

    def freeze(self, name):
        """SIGSTOP; on the embedded log between two transactions."""
        if self.broker.startswith("local://"):
            freeze(self.processes[name], self.broker.removeprefix("local://"))
        else:
            stop(self.processes[name].pid)

    def kill(self, *names):
        """SIGKILL."""
        for name in names:
            process = self.processes.pop(name)
            assert process.poll() is None, f"{name} ended by itself:\n{self.tail(name)}"
            process.kill()
            process.wait()

    def terminate(self, *names, wait_s=40):
        """SIGTERM to all at once, and their exit codes."""
        ending = [self.processes.pop(name) for name in names]
        try:
            for process in ending:
                process.send_signal(signal.SIGTERM)
            return {process.wait(wait_s) for process in ending}
        finally:
            for process in ending:
                process.kill()

    def hold_in_a_stage(self, name):
        """Return when this worker's models are at work; they go on after :meth:`let_go`."""
        held = self.home / f"held-{self.processes[name].pid}"
        self.hold.touch()
        wait_for(held.exists, f"{name} to be held")
        held.unlink()

    def let_go(self):
        self.hold.unlink()

    def tail(self, name, lines=60):
        text = (self.home / name / "output").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def metric(self, name, metric):
        """The sum of a metric's values over its labels."""
        import urllib.request

        url = f"http://127.0.0.1:{self.ports[name]}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith((f"{metric} ", f"{metric}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def stop(self, **_options):
        """Kill what is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes = {}
        shutil.rmtree(self.ring.parent, ignore_errors=True)


class Sent(NamedTuple):
    """A record as it was sent; ``id`` None for one that cannot become a row."""

    id: str | None
    record: Outgoing


def events(name, seed):
    """An endless stream in 20 conversations: repeats, poison and bad bytes in it.

    So many that no worker is without events, whichever two of the four partitions it has.  Times
    move on and sometimes run backwards; an event's key is its conversation.
    """
    chance = random.Random(f"{name} {seed}")
    lately = deque(maxlen=40)
    at_ms = 1_760_000_000_000
    for number in itertools.count():
        at_ms += chance.choice([15, 400, 3_000, 70_000, -2_000])
        conversation = f"{name}-{chance.randrange(20)}"
        kind = chance.choices(["good", "again", "poison", "bad"], [89.5, 5, 0.5, 5])[0]
        if kind == "again" and not lately:
            kind = "good"
        text = f"{chance.choice(['great', 'bad', 'so so'])} {number}"
        event = {
            "id": f"{name}-{number}",
            "message": f"poison {text}" if kind == "poison" else text,
            "type": f"{name}-{chance.choice('ab')}",
            "conversation_id": conversation,
            "actor": chance.choice(["human", "agent"]),
            "time": at_ms,
            "duration_ms": chance.choice([0, 250, 5_000]),
            chance.choice(["channel", "plan", "city"]): number,
        }
        value = json.dumps(event).encode()
        if kind == "bad":
            value = chance.choice([b"\x00\xff%d" % number, b"[%d]" % number, value[:-1], None])
        headers = [("trace", b"%d" % number)] if number % 3 else []
        sent = Sent(
            event["id"] if kind == "good" else None,
            Outgoing(value, conversation.encode(), headers),
        )
        if kind == "again":
            sent = chance.choice(lately)
        elif kind == "good":
            lately.append(sent)
        yield sent


class Load(threading.Thread):
    """A careful producer in a thread: in order, and what was not taken is sent again.

    As a context: it sends until the block ends, and then that much has been taken.

    Args:
        url: of the log.
        stream: what to send.
        sent: everything that the log took is added to it.
    """

    def __init__(self, url, stream, sent, *, chunk=4, pause_s=0.04):
        super().__init__(daemon=True)
        self._url, self._stream, self._sent = url, stream, sent
        self._chunk, self._pause_s = chunk, pause_s
        self._enough = threading.Event()
        self._error = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self._enough.set()
        self.join(120)
        if kind is None:
            assert not self.is_alive(), "the log took nothing for two minutes"
            if self._error is not None:
                raise self._error

    def more(self, count, wait_s=60):
        """Return when so many more events were taken."""
        goal = len(self._sent) + count
        wait_for(lambda: len(self._sent) >= goal or self._error, f"{count} more taken", wait_s)

    def run(self):
        try:
            asyncio.run(self._send())  # a loop of its own
        except BaseException as error:  # noqa: BLE001  # raised again by the test's thread
            self._error = error

    async def _send(self):
        """In the thread, until it is enough."""
        producer = open_producer(self._url)
        await producer.start()
        try:
            while not self._enough.is_set():
                chunk = list(itertools.islice(self._stream, self._chunk))
                await self._until_taken(producer, [one.record for one in chunk])
                self._sent.extend(chunk)
                await asyncio.sleep(self._pause_s)
        finally:
            await producer.stop()

    async def _until_taken(self, producer, records):
        while True:
            try:
                return await producer.send(RAW, records)
            except Retry:
                await asyncio.sleep(0.05)


def _site(home):
    """A folder that installs the stages, for PYTHONPATH."""
    info = home / "site" / "promised_stages-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: promised-stages\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[streamapp.stages]\nvectors = promised_stages:Vectors\n"
    )
    (info.parent / "promised_stages.py").write_text(_STAGE)
    return info.parent


def _topics(folder, stage_s, hold):
    shutil.copytree(defaults("topics"), folder)
    (folder / "workflow.toml").write_text(_WORKFLOW.format(seconds=stage_s, hold=hold))
