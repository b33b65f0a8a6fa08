"""The load generator wrk: one thread, keep-alive connections, each with one request in flight."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

#: Debian's packages of it and of what it needs, unpacked into the cache where it is not installed.
PACKAGES = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common", "libluajit2-5.1-2")
DOWNLOAD_S_MAX = 120
CONNECTIONS = 32
#: Beyond the measured time, for what is still on its way.
GRACE_S = 30.0

#: Bodies come from files named by the environment; each request takes the next of them.  What came
#: of it is one line of JSON, latencies in microseconds.
_LUA = """
local requests, at = {{}}, 0
function init()
  for _, name in ipairs({{{names}}}) do
    local file = assert(io.open(name, "rb"))
    requests[#requests + 1] = wrk.format("POST", {path}, {{{headers}}}, file:read("*a"))
    file:close()
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"us":%d,"p50_us":%d,"p95_us":%d,"p99_us":%d,"refused":%d,"broken":%d}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class Unavailable(Exception):
    """Why there is no wrk here."""


class Failed(Exception):
    """A run in which not every request was answered with success."""


class Load(NamedTuple):
    """What a run showed; ``cpu_us`` is the server's per request."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def program() -> list[str]:
    """The command; wrk is fetched on first use where it is not installed.

    Raises:
        Unavailable: it is neither installed nor to be had.
    """
    if installed := shutil.which("wrk"):
        return [installed]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "bench" / "wrk"
    if not (folder / "usr" / "bin" / "wrk").exists():
        _unpack(folder)
    libraries = ":".join(str(found.parent) for found in folder.glob("usr/lib/*/libluajit*.so.2"))
    return ["env", f"LD_LIBRARY_PATH={libraries}", str(folder / "usr" / "bin" / "wrk")]


def run(
    url: str,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    seconds: float,
    pid: int,
    connections: int = CONNECTIONS,
    strict: bool = True,
) -> Load:
    """POST the bodies in turn for so long.

    Args:
        url: of the server.
        path: to post to.
        headers: of every request.
        bodies: in memory of wrk, whole.
        seconds: at least 1, whole ones.
        pid: of the server's process.
        connections: at once.
        strict: every answer is to be one of success.

    Raises:
        Failed: an answer was not 2xx or 3xx, or did not come.
    """
    found = answers(
        url, path, headers, bodies, seconds=seconds, pid=pid, connections=connections, strict=strict
    )
    return Load(found["per_s"], found["p50_ms"], found["p99_ms"], found["cpu_us"])


def answers(
    url: str,
    path: str,
    headers: Mapping[str, str],
    bodies: Sequence[bytes],
    *,
    seconds: float,
    pid: int,
    connections: int = CONNECTIONS,
    strict: bool = True,
) -> dict[str, float]:
    """As ``run``: ``per_s``, ``p50_ms``, ``p95_ms``, ``p99_ms``, ``cpu_us``."""
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        script = _script(Path(folder), path, headers, bodies)
        command = [*program(), "-t1", f"-c{connections}", f"-d{int(seconds)}s", "--timeout", "20s"]
        before_s = cpu_s(pid)
        said = subprocess.run(
            [*command, "-s", str(script), url],
            check=True,
            capture_output=True,
            text=True,
            timeout=seconds + GRACE_S,
        ).stdout
        spent_s = cpu_s(pid) - before_s
    found = json.loads(said.strip().rpartition("\n")[2])
    if not found["requests"] or (strict and (found["refused"] or found["broken"])):
        raise Failed(f"{url}{path}: {found}")
    count = found["requests"]
    latencies = {f"p{n}_ms": found[f"p{n}_us"] / 1e3 for n in (50, 95, 99)}
    return {"per_s": count / found["us"] * 1e6, **latencies, "cpu_us": spent_s / count * 1e6}


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _script(folder: Path, path: str, headers: Mapping[str, str], bodies: Sequence[bytes]) -> Path:
    names = []
    for number, body in enumerate(bodies):
        file = folder / f"body-{number}"
        file.write_bytes(body)
        names.append(json.dumps(str(file)))
    said = ", ".join(f"[{json.dumps(name)}] = {json.dumps(text)}" for name, text in headers.items())
    script = folder / "post.lua"
    script.write_text(_LUA.format(names=", ".join(names), path=json.dumps(path), headers=said))
    return script


def _unpack(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for package in PACKAGES:  # which LuaJIT wrk was built with depends on the release
            subprocess.run(
                ["apt-get", "download", "--quiet", package],
                cwd=folder,
                check=False,
                capture_output=True,
                timeout=DOWNLOAD_S_MAX,
            )
        for file in sorted(folder.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", file.name, "."], cwd=folder, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"wrk could not be fetched: {error}") from None
    if not (folder / "usr" / "bin" / "wrk").exists():
        raise Unavailable("wrk is not installed, and apt-get has no package of it")
