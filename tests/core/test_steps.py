"""Steps are run alike with an event loop and without one."""

import asyncio

import pytest

from streamapp.core import steps
from streamapp.core.steps import Pause, take, take_async


def asking(said):
    """Asks twice with a pause between, and gives what it heard."""
    first = yield "one"
    assert (yield Pause(0.25)) is None
    said.append(first)
    said.append((yield "two"))
    return len(said)


def raising():
    yield "one"
    raise ValueError("it ends badly")


@pytest.fixture
def slept(monkeypatch):
    found = []

    async def sleep(seconds):
        found.append(seconds)

    monkeypatch.setattr(steps.time, "sleep", found.append)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    return found


def in_thread(generator):
    return take(generator, str.upper)


def on_loop(generator):
    async def call(step):
        return step.upper()

    return asyncio.run(take_async(generator, call))


@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_calls_and_pauses_in_order(run, slept):
    said = []
    assert run(asking(said)) == 2
    assert (said, slept) == (["ONE", "TWO"], [0.25])


@pytest.mark.parametrize("run", [in_thread, on_loop])
def test_what_the_steps_raise_is_raised(run):
    with pytest.raises(ValueError, match="badly"):
        run(raising())


def test_what_a_call_raises_is_not_taken_for_the_end():
    def call(_):
        raise StopIteration

    with pytest.raises(StopIteration):
        take(asking([]), call)
