"""What every room's tests share, and the list of what this run could not prove."""

import re

import pytest

pytest_plugins = ["machine", "kafka_broker", "faust_apps", "wheels"]


def pytest_terminal_summary(terminalreporter):
    """Close with what was skipped or left to the long run, so that green never hides silence."""
    unproven = {_reason(report) for report in terminalreporter.stats.get("skipped", [])}
    left = terminalreporter.stats.get("deselected", [])
    soaks = sum(item.get_closest_marker("soak") is not None for item in left)
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
