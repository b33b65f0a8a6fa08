"""Children are kept alive and heard whatever happens to their logs, and say why they ended."""

import asyncio
import os
import sys

import pytest

from streamapp.screen import supervisor
from streamapp.screen.supervisor import Child, Supervisor

WAIT_S = 20


def child(code, name="child"):
    return Child(name, (sys.executable, "-u", "-c", code), dict(os.environ))


class Lines(list):
    """A printer that can be waited for."""

    def __init__(self):
        super().__init__()
        self.news = asyncio.Event()

    def __call__(self, name, line):
        self.append(line)
        self.news.set()

    async def having(self, text):
        async with asyncio.timeout(WAIT_S):
            while not any(text in line for line in self):
                self.news.clear()
                await self.news.wait()
        return next(line for line in self if text in line)


def supervised(tmp_path, code):
    lines = Lines()
    return Supervisor([child(code)], tmp_path / "logs", drain_s=5, printer=lines), lines


async def test_a_log_that_cannot_be_written_does_not_silence_the_child(tmp_path):
    """A pipe that nobody reads fills up, and the child blocks on its next line for ever."""
    (tmp_path / "logs/child.log").mkdir(parents=True)
    code = "for n in range(20000): print('x' * 20)\nprint('said all')\nimport time; time.sleep(60)"
    watched, lines = supervised(tmp_path, code)
    await watched.start()
    await lines.having("said all")
    await lines.having("not logged")
    await watched.stop()


async def test_the_reason_of_an_end_is_told_with_the_restart(tmp_path):
    code = "import sys\nprint('error: the topic was made anew')\nprint('fix: no')\nsys.exit(70)"
    watched, lines = supervised(tmp_path, code)
    await watched.start()
    line = await lines.having("starts again")
    assert "exit code 70: the topic was made anew" in line
    assert watched.children["child"].error == "the topic was made anew"
    assert await watched.stop()


async def test_a_child_stopped_before_it_could_listen_ended_cleanly(tmp_path):
    watched, lines = supervised(tmp_path, "print('up')\nimport time; time.sleep(60)")
    await watched.start()
    await lines.having("up")
    assert await watched.stop()


async def test_a_child_that_is_being_started_while_all_stop_is_stopped_too(tmp_path):
    watched, _ = supervised(tmp_path, "import time; time.sleep(60)")
    await watched.start()
    while watched.children["child"].state != "starting":
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert watched.children["child"].process is None  # between fork and our hearing of it
    async with asyncio.timeout(WAIT_S):
        assert await watched.stop()


FAULT = "print('error: rows were lost')\nprint('fix: feed them anew')\nimport sys; sys.exit(70)"


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(supervisor, "RESTART_S_FIRST", 0.01)
    monkeypatch.setattr(supervisor, "RESTART_S_MAX", 0.01)


async def until(condition):
    """Poll: nobody is told when a child's state changes."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


async def started_again(watched):
    """Its child is, however often it ends."""
    await watched.start()
    await until(lambda: watched.children["child"].restarts >= 4 or watched.refused())
    assert watched.refused() is None
    await watched.stop()


async def ended(tmp_path, code, stood):
    """A child that is not started again; where it stands is asked of ``stood`` at each fault."""
    told = iter(stood)

    async def stand(_):
        return next(told)

    watched = Supervisor([child(code)], tmp_path / "logs", drain_s=5, stand=stand)
    await watched.start()
    await until(watched.refused)
    await watched.stop()
    return watched.refused(), list(told)


@pytest.mark.usefixtures("at_once")
async def test_a_fault_that_comes_back_where_the_child_stood_is_the_end(tmp_path):
    found, _ = await ended(tmp_path, FAULT, [(1, 1)] * 3)
    assert (found.exit_code, found.restarts) == (70, 2)
    assert (found.error, found.fix) == ("rows were lost", "feed them anew")


@pytest.mark.usefixtures("at_once")
async def test_a_child_that_got_on_between_its_faults_is_started_again(tmp_path):
    found, left = await ended(tmp_path, FAULT, [1, 1, 2, 2, 3, 3, 3])
    assert (found.restarts, left) == (6, [])


@pytest.mark.usefixtures("at_once")
async def test_a_fault_now_and_then_where_nothing_comes_is_not_the_end(tmp_path, monkeypatch):
    """Of a stream at rest the ends stay as they are, for days."""
    monkeypatch.setattr(supervisor, "FAULTS_APART_S", 0.0)  # each child lives longer
    asked, lines = [], Lines()

    async def stand(name):
        asked.append(name)
        return 1

    watched = Supervisor([child(FAULT)], tmp_path / "logs", drain_s=5, printer=lines, stand=stand)
    await watched.start()
    await until(lambda: len(asked) == 5 or watched.refused())
    assert watched.refused() is None
    await watched.stop()


@pytest.mark.usefixtures("at_once")
async def test_a_declaration_that_takes_long_to_be_refused_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "FAULTS_APART_S", 0.0)
    found, _ = await ended(tmp_path, "import sys; sys.exit(2)", [])
    assert (found.exit_code, found.restarts) == (2, 2)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("code", ["import sys; sys.exit(75)", "import os; os.kill(os.getpid(), 9)"])
async def test_what_is_no_fault_of_its_own_ends_no_child(tmp_path, code):
    async def stand(_):
        raise AssertionError

    lines = Lines()
    watched = Supervisor([child(code)], tmp_path / "logs", drain_s=5, printer=lines, stand=stand)
    await started_again(watched)


@pytest.mark.usefixtures("at_once")
async def test_nobody_who_could_say_where_it_stands_means_no_end(tmp_path):
    lines = Lines()
    watched = Supervisor([child(FAULT)], tmp_path / "logs", drain_s=5, printer=lines)
    await started_again(watched)
