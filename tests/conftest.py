"""What every room's tests share, and the list of what this run could not prove."""

import re

import pytest

pytest_plugins = ["machine", "kafka_broker", "dead_letters", "s3_server", "faust_apps", "wheels"]


#: Long forms that were left out.  Each process that runs tests deselects all of them.
SOAKS = pytest.StashKey[int]()


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


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch):
    """No setting of the person's own shell reaches a test."""
    import os

    for name in [name for name in os.environ if name.startswith("STREAMAPP_")]:
        monkeypatch.delenv(name)
