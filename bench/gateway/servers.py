"""Contenders as processes: each begins, says where it listens, and ends with the benchmark."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import venvs

BENCH = Path(__file__).parents[1]
START_S_MAX = 60.0
_URL = re.compile(r"(http://127\.0\.0\.1:\d+)")


class Server(NamedTuple):
    """A contender that listens."""

    url: str
    pid: int


class Failed(Exception):
    """A contender that did not begin; its last words."""


@contextlib.contextmanager
def gateway(broker: str, home: Path) -> Iterator[Server]:
    """Ours, as ``streamapp gateway`` runs it, on the log at a URL; its topics are made."""
    environment = _environment(
        STREAMAPP_HOME=str(home),
        STREAMAPP_BROKER=broker,
        STREAMAPP_GATEWAY_PORT="0",
    )
    program = [sys.executable, "-P", "-m", "streamapp.cli"]
    subprocess.run([*program, "topics", "apply"], env=environment, cwd=home, check=True, stdout=2)
    with _process([*program, "gateway"], environment, home) as server:
        yield server


@contextlib.contextmanager
def bare(*arguments: str) -> Iterator[Server]:
    """A handler of ``bare.py``."""
    command = [sys.executable, "-P", "-m", "gateway.bare", *arguments]
    with _process(command, _environment(), BENCH) as server:
        yield server


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[Server]:
    """A program of this folder that says its URL."""
    with _process(command, _environment(), BENCH) as server:
        yield server


@contextlib.contextmanager
def karapace(bootstrap: str) -> Iterator[Server]:
    """Karapace's REST proxy with acks=all.

    Raises:
        venvs.Unavailable: it cannot be installed, and ``BENCH_KARAPACE`` names none.
    """
    program = os.environ.get("BENCH_KARAPACE") or str(
        Path(venvs.python("karapace", "karapace")).with_name("karapace")
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "bootstrap_uri": bootstrap,
        "karapace_rest": True,
        "karapace_registry": False,
        "host": "127.0.0.1",
        "port": port,
        "producer_acks": -1,
        "log_level": "WARNING",
    }
    with tempfile.TemporaryDirectory(prefix="bench-karapace-") as folder:
        path = Path(folder) / "karapace.json"
        path.write_text(json.dumps(config))
        url = f"http://127.0.0.1:{port}"
        with _process([program, str(path)], _environment(), Path(folder), url) as server:
            yield server


@contextlib.contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], cwd: Path, url: str = ""
) -> Iterator[Server]:
    """A server that says its URL, or is known to get this one."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        said: list[str] = []
        reading = threading.Thread(target=_read, args=(process, said), daemon=True)
        reading.start()
        try:
            yield Server(_begun(process, said, url), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _read(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        del said[:-50]


def _begun(process: subprocess.Popen[str], said: list[str], url: str) -> str:
    """Where it listens, when it does."""
    end_s = monotonic() + START_S_MAX
    while monotonic() < end_s and process.poll() is None:
        match = _URL.search("".join(said))
        if url and _answers(url):
            return url
        if match and not url:
            return match[1]
        sleep(0.05)
    raise Failed(f"{' '.join(process.args)}: {''.join(said)[-2000:]}")  # type: ignore[arg-type]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _environment(**more: str) -> dict[str, str]:
    """Contenders find this folder and the package beside it; no setting of the caller's is theirs."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("STREAMAPP_")}
    return {**own, **more, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])}
