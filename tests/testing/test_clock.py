"""The clock of tests: it moves when told, and everybody sees it."""

from datetime import UTC, datetime

import pytest

from streamapp.core import clock
from streamapp.core.errors import Refuse, Reject
from streamapp.testing import FakeClock

NEW_YEAR_MS = 1_767_225_600_000


def test_it_stands_still_and_advances():
    fake = FakeClock()
    assert fake.now_ms() == NEW_YEAR_MS
    assert fake.monotonic_s() == 0
    fake.advance(1.5)
    assert fake.now_us() == NEW_YEAR_MS * 1000 + 1_500_000
    assert fake.monotonic_s() == 1.5


@pytest.mark.parametrize(
    "moment",
    [
        "2025-12-31T23:59:59+00:00",
        NEW_YEAR_MS - 1000,
        datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
)
def test_wall_time_is_set_and_monotonic_time_is_not(moment):
    fake = FakeClock()
    fake.advance(5)
    fake.set(moment)
    assert fake.now_ms() == NEW_YEAR_MS - 1000
    assert fake.monotonic_s() == 5


def test_time_does_not_go_back_by_advancing():
    with pytest.raises(Refuse, match="-1"):
        FakeClock().advance(-1)
    with pytest.raises(Reject, match="soon"):
        FakeClock().set("soon")


def test_while_installed_all_of_ours_read_it_and_afterwards_nobody_does():
    held = clock.SYSTEM
    with FakeClock().installed() as fake:
        fake.advance(2)
        assert clock.now_ms() == held.now_us() // 1000 == NEW_YEAR_MS + 2000
        assert clock.monotonic_s() == held.monotonic_s() == 2
    assert clock.now_ms() != NEW_YEAR_MS + 2000
    before = held.monotonic_s()
    assert clock.monotonic_s() >= before > 0


def test_the_machine_s_clock_comes_back_after_an_error():
    with pytest.raises(ZeroDivisionError), FakeClock().installed():
        raise ZeroDivisionError
    assert clock.now_ms() > NEW_YEAR_MS + 1000
