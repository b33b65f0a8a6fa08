"""What ``streamapp doctor`` looks at.  Every check answers; none raises for what it looks for."""

import asyncio
import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from streamapp.cli.options import missing_log
from streamapp.cli.output import bytes_text
from streamapp.core.clock import now_us
from streamapp.core.config import Settings, env_name, gateway_url, http_url, misnamed
from streamapp.core.counted import counted
from streamapp.core.errors import StreamappError
from streamapp.core.tls import client_context
from streamapp.topics import catalogue
from streamapp.transport.clients import Admin

PYTHON_MIN = (3, 11)
DISK_BYTES_FAIL, DISK_BYTES_WARN = 200 << 20, 2 << 30
FILES_MIN = 1024
#: 2026-01-01; a clock before that was never set.
CLOCK_US_MIN = 1_767_225_600_000_000
CLOCK_SKEW_S_MAX = 2.0
ANSWER_S_MAX = 3.0
#: Shared memory that the ring needs per frame beside its vector.
RECORD_BYTES = 128
DIM_USUAL = 384

Status = Literal["ok", "warn", "fail"]


class Check(NamedTuple):
    """One line of the doctor's answer."""

    name: str
    status: Status
    detail: str
    fix: str = ""


def run_checks(settings: Settings) -> Iterator[Check]:
    """All checks, in the order in which one would mend."""
    for name, check in CHECKS.items():
        try:
            yield from check(settings)
        except StreamappError as error:
            yield Check(name, "fail", error.message, error.fix)
        except PermissionError as error:
            detail = f"{error.filename}: {error.strerror}"
            yield Check(name, "fail", detail, "let this user in, or name another path")


def check_python(_settings: Settings) -> Iterator[Check]:
    """Is this Python new enough?"""
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= PYTHON_MIN
    yield Check("python", "ok" if good else "fail", version, "" if good else "use 3.11 or newer")


def check_compiler(_settings: Settings) -> Iterator[Check]:
    """Are the C extensions built, and could they be?"""
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), "")
    try:
        from streamapp.ring import _ring  # noqa: F401
        from streamapp.topics import _scan  # noqa: F401
    except ImportError as error:
        fix = "pip install --force-reinstall streamapp"
        if not compiler:
            fix = f"install a C compiler (apt-get install gcc python3-dev), then {fix}"
        yield Check("compiler", "fail", f"a C extension does not load: {error}", fix)
        return
    yield Check("compiler", "ok", f"the C extensions are built; {compiler or 'no compiler'}")


def check_settings(_settings: Settings) -> Iterator[Check]:
    """Is every variable that is called as a setting one?"""
    wrong = misnamed()
    if wrong:
        fix = "; ".join(f"{name}: {hint}" for name, hint in wrong.items())
        yield Check("settings", "warn", f"no setting: {', '.join(wrong)}", fix)
    else:
        yield Check("settings", "ok", "streamapp config show lists them")


def check_home(settings: Settings) -> Iterator[Check]:
    """Can the home be written, has its disk room, and does its clock agree with ours?"""
    written_s = _written_s(settings.home)
    if isinstance(written_s, str):
        yield Check("home", "fail", written_s, f"make it writable, or set {env_name('home')}")
        return
    skew_s = abs(written_s - now_us() / 1e6)
    yield Check("home", "ok", f"{settings.home} is writable")
    yield _space("disk", settings.home, DISK_BYTES_FAIL, DISK_BYTES_WARN)
    yield _clock(skew_s)


def check_files(_settings: Settings) -> Iterator[Check]:
    """May we open enough files?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    good = soft == resource.RLIM_INFINITY or soft >= FILES_MIN
    fix = "" if good else f"ulimit -n {min(max(hard, FILES_MIN), 65536)}"
    yield Check("open files", "ok" if good else "warn", f"{soft:,} at most", fix)


def check_ports(settings: Settings) -> Iterator[Check]:
    """Is every port free, or served by us?"""
    yield asyncio.run(_port(settings, "gateway_port", settings.gateway_host))
    yield _flight_port(settings)
    for name in ("worker_port", "store_port", "terminal_port"):
        yield asyncio.run(_port(settings, name, "127.0.0.1"))


def check_broker(settings: Settings) -> Iterator[Check]:
    """Does the log answer, with the topics that are declared?"""
    from streamapp.compose import admin

    declared = catalogue.load(settings.topics_dir)
    if (folder := missing_log(settings)) is not None:
        yield Check("broker", "ok", f"{folder} is not there yet: the first process makes it")
        return
    try:
        there = asyncio.run(_topics(admin(settings)))
    except TimeoutError:
        fix = f"start it, or set {env_name('broker')}"
        yield Check("broker", "fail", f"{settings.broker_url} does not answer", fix)
        return
    except StreamappError as error:
        yield Check("broker", "fail", error.message, error.fix)
        return
    yield Check("broker", "ok", f"{settings.broker_url} answers")
    missing = [topic.name for topic in declared if topic.name not in there]
    wrong = [
        f"{topic.name} has {counted(there[topic.name], 'partition')},"
        f" {topic.partitions} are declared"
        for topic in declared
        if topic.name in there and there[topic.name] != topic.partitions
    ]
    if wrong:
        fix = "declare what the log has, or make a new topic: partition counts never change"
        yield Check("topics", "fail", "; ".join(wrong), fix)
    elif missing:
        detail = f"not there yet: {', '.join(missing)}"
        yield Check("topics", "warn", detail, "streamapp topics apply")
    else:
        yield Check("topics", "ok", f"{len(there)} on the log, as declared")


def check_workflow(settings: Settings) -> Iterator[Check]:
    """Is every stage that the workflow names installed?"""
    from streamapp.workflow.spec import installed_stages, load_workflow

    folder = settings.topics_dir or catalogue.defaults("topics")
    workflow = load_workflow(folder / "workflow.toml")
    missing = [name for name in workflow.stages if name not in installed_stages()]
    if missing:
        fix = "pip install the package, or take it out; streamapp stage ls shows what there is"
        detail = f"{workflow.path}: not installed: {', '.join(missing)}"
        yield Check("workflow", "fail", detail, fix)
    else:
        yield Check("workflow", "ok", f"runs {', '.join(workflow.stages)}")


def check_models(settings: Settings) -> Iterator[Check]:
    """Is the default model here, byte for byte, and is every other declared as it should be?"""
    from streamapp.compose import registry as open_registry
    from streamapp.models.receipt import verify

    registry = open_registry(settings)
    for broken in registry.catalogue.broken.values():
        yield Check("models", "warn", str(broken), "streamapp models list")
    if settings.embedding_model is not None:
        yield Check("models", "ok", f"your own: {settings.embedding_model}")
        return
    status = registry.status()
    if not status.pulled and isinstance(refused := _written_s(status.folder), str):
        fix = f"make it writable, or set {env_name('models_cache')}"
        yield Check("models", "fail", f"{status.name} is not pulled, and {refused}", fix)
        return
    if not status.pulled:
        yield Check("models", "warn", f"{status.name} is not pulled", "streamapp models pull")
        return
    verify(registry.manifest(), registry.folder())
    yield Check("models", "ok", f"{status.name}, {bytes_text(status.bytes)}, sha256 verified")


def check_ring(settings: Settings) -> Iterator[Check]:
    """Is the ring sound, and is there shared memory for it?"""
    from streamapp.ring import RingReader
    from streamapp.ring.files import refusal

    path = settings.ring_file
    try:
        there = path.exists()
    except OSError as error:
        refused = refusal(path, error, "look at")
        yield Check("ring", "fail", refused.message, refused.fix)
        return
    if not there:
        who = "worker" if settings.ring == "direct" else "terminal"
        yield Check("ring", "ok", f"{path} is not there yet: streamapp {who} makes it")
        need = 2 * settings.ring_frames * (RECORD_BYTES + 4 * DIM_USUAL)
        yield _space("shared memory", path.parent, need, 2 * need)
        return
    try:
        with RingReader.open(path, engine="twin") as reader:
            stat = reader.stat()
    except StreamappError as error:
        stale = error.code == "ring.stale"
        yield Check("ring", "warn" if stale else "fail", error.message, error.fix)
        return
    writer = f"written by pid {stat['writer_pid']}" if stat["writer_alive"] else "no writer now"
    detail = f"{path}, {stat['state']}, {counted(stat['frames'], 'frame')}, {writer}"
    yield Check("ring", "ok", detail)
    yield _space("shared memory", path.parent, 1 << 20, 16 << 20)


CHECKS: dict[str, Callable[[Settings], Iterator[Check]]] = {
    "python": check_python,
    "compiler": check_compiler,
    "settings": check_settings,
    "home": check_home,
    "open files": check_files,
    "ports": check_ports,
    "broker": check_broker,
    "workflow": check_workflow,
    "models": check_models,
    "ring": check_ring,
}


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


def _written_s(folder: Path) -> float | str:
    """The Unix time of a file written there, which is gone again; or why it cannot be written."""
    place = _existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            return Path(file.name).stat().st_mtime
    except OSError as error:
        return f"cannot write to {place}: {error.strerror}"


def _space(name: str, path: Path, fail_below: int, warn_below: int) -> Check:
    place = _existing(path)
    free = shutil.disk_usage(place).free
    status: Status = "fail" if free < fail_below else "warn" if free < warn_below else "ok"
    fix = "" if status == "ok" else f"make room on {place} (docker: --shm-size), or use another"
    return Check(name, status, f"{bytes_text(free)} free at {place}", fix)


def _clock(skew_s: float) -> Check:
    fix = "set the clock: timedatectl set-ntp true"
    if now_us() < CLOCK_US_MIN:
        return Check("clock", "fail", "the clock is years behind", fix)
    if skew_s > CLOCK_SKEW_S_MAX:
        return Check("clock", "warn", f"{skew_s:.0f} s apart from the home's file system", fix)
    return Check("clock", "ok", "agrees with the home's file system")


async def _port(settings: Settings, name: str, host: str) -> Check:
    """Free, ours, or somebody else's."""
    import aiohttp

    port = getattr(settings, name)
    title = f"{name.removesuffix('_port')} port"
    if (refused := _bind(host, port)) is None:
        return Check(title, "ok", f"{port} is free")
    limit = aiohttp.ClientTimeout(total=ANSWER_S_MAX)
    gateway = name == "gateway_port"
    url = gateway_url(settings) if gateway else http_url(host, port)
    tls = client_context(settings) if gateway else None
    ours = False
    try:
        async with (
            aiohttp.ClientSession(timeout=limit) as session,
            session.get(f"{url}/metrics", ssl=tls or True) as answer,
        ):
            ours = "streamapp_" in await answer.text()
    except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError):
        ours = False
    if ours:
        return Check(title, "ok", f"{port} is served by streamapp")
    return _taken(title, name, port, refused)


def _flight_port(settings: Settings) -> Check:
    port = settings.flight_port
    if (refused := _bind(settings.flight_host, port)) is None:
        return Check("flight port", "ok", f"{port} is free")
    from streamapp.cli.query import fetch

    try:
        fetch(settings, "select 1")
    except StreamappError as error:
        if error.code == "flight.token":
            return Check("flight port", "warn", error.message, error.fix)
        return _taken("flight port", "flight_port", port, refused)
    return Check("flight port", "ok", f"{port} is served by streamapp")


def _bind(host: str, port: int) -> str | None:
    """Why the address cannot be bound; None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


def _taken(title: str, name: str, port: int, why: str) -> Check:
    fix = f"stop what uses it (ss -ltnp | grep {port}), or set {env_name(name)}"
    return Check(title, "fail", f"{port} cannot be used: {why}", fix)


async def _topics(admin: Admin) -> dict[str, int]:
    """Topic name to number of partitions."""
    async with asyncio.timeout(ANSWER_S_MAX):
        await admin.start()
        try:
            return {name: spec.partitions for name, spec in (await admin.topics()).items()}
        finally:
            await admin.stop()
