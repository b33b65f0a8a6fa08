"""Children are kept alive and heard whatever happens to their logs, and say why they ended."""

import asyncio
import os
import sys

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
