"""The pytest plugin ``streamapp``: fixtures; nothing is loaded until a test asks for one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from streamapp.testing.clock import FakeClock
    from streamapp.testing.log import MemoryLog
    from streamapp.testing.pipeline import Pipeline

pytest.register_assert_rewrite("streamapp.testing.contracts")


@pytest.fixture
def streamapp_clock() -> "Iterator[FakeClock]":
    """The time, standing still at 2026-01-01 00:00 UTC until ``advance(seconds)`` or ``set``."""
    from streamapp.testing.clock import FakeClock

    with FakeClock().installed() as clock:
        yield clock


@pytest.fixture
def streamapp_log(streamapp_clock: "FakeClock") -> "MemoryLog":
    """A log in memory: ``create``, ``append``, ``read``, and clients for code that wants those."""
    from streamapp.testing.log import MemoryLog

    return MemoryLog(clock=streamapp_clock)


@pytest.fixture
def streamapp(streamapp_clock: "FakeClock", streamapp_log: "MemoryLog") -> "Iterator[Pipeline]":
    """Stages on a log in memory: ``use`` them, ``send`` events, look at ``rows``."""
    from streamapp.testing.pipeline import Pipeline

    pipeline = Pipeline(log=streamapp_log, clock=streamapp_clock)
    yield pipeline
    pipeline.close()
