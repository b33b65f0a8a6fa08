"""What every room's tests share, and the list of what this run could not prove."""

import faulthandler
import gc
import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["machine", "kafka_broker", "dead_letters", "s3_server", "faust_apps", "wheels"]

HERE = Path(__file__).parent
#: How long an example takes says how busy the machine is.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

#: Folders whose files take longest, in this order: begun last, one of them would be waited for.
SLOW = ("path", "contract", "transport")

#: How long a test may take to clean up, and where to say that one did not: stderr before it is captured.
TEARDOWN_S = 120
STDERR = pytest.StashKey[int]()

#: Long forms that were left out.  Each process that runs tests deselects all of them.
SOAKS = pytest.StashKey[int]()


def pytest_configure(config):
    config.stash[STDERR] = os.dup(2)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """A test that failed has no timeout any more: a teardown that hangs shows where, and ends its process."""
    faulthandler.dump_traceback_later(TEARDOWN_S, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_deselected(items):
    if items:
        soaks = sum(item.get_closest_marker("soak") is not None for item in items)
        items[0].config.stash[SOAKS] = soaks


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["soaks"] = session.config.stash.get(SOAKS, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A process that ran some of the tests says what it left out (pytest-xdist)."""
    found = getattr(node, "workeroutput", {}).get("soaks", 0)
    node.config.stash[SOAKS] = max(found, node.config.stash.get(SOAKS, 0))


def pytest_terminal_summary(terminalreporter):
    """Close with what was skipped or left to the long run, so that green never hides silence."""
    unproven = {_reason(report) for report in terminalreporter.stats.get("skipped", [])}
    soaks = terminalreporter.config.stash.get(SOAKS, 0)
    if soaks:
        unproven.add(f"{soaks} long forms of fault tests: `make soak`")
    write = terminalreporter.write_line
    write("")
    write("not proven:" if unproven else "not proven: nothing")
    for line in sorted(unproven):
        write(f"  - {line}")


def _reason(report):
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return f"{report.nodeid.split('::')[0]}: {re.sub(r'^Skipped: ', '', text)}"


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What rewrites the tests' asserts makes big trees and no cycles: an eighth of it is looking.

    What was collected lives to the end: nobody has to look through it again and again.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure():
    """Let go of it again: extension modules tell of objects that outlive the interpreter."""
    gc.unfreeze()


def pytest_collection_modifyitems(items):
    """Slow files first; a file's own tests stay in order."""
    rank = {str(HERE / name): number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(str(item.path.parent), len(SLOW)))


def pytest_collection_finish():
    """What tests start finds ``bare`` before what is installed; who runs them does not."""
    places = [str(HERE / "bare"), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    """No setting of the person's own shell reaches a test."""
    for name in [name for name in os.environ if name.startswith("STREAMAPP_")]:
        monkeypatch.delenv(name)
