"""Answers of other threads come to the event loop: each once, many by one waking."""

import asyncio
import threading
from concurrent.futures import Future

import pytest

from streamapp.models.serving.arrivals import Arrivals

WAIT_S = 20


def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()


async def test_many_answers_wake_the_loop_once(monkeypatch):
    arrivals, wakes = Arrivals(), []
    loop = asyncio.get_running_loop()
    wake = loop.call_soon_threadsafe

    def counted(function, *arguments):
        if function == arrivals._hand_out:
            wakes.append(function)
        return wake(function, *arguments)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    for _ in range(2):  # and again, when the loop has looked
        answers = [Future() for _ in range(64)]
        waiting = [asyncio.ensure_future(arrivals.of(answer)) for answer in answers]
        await asyncio.sleep(0)

        def answer(answers=answers):
            for number, one in enumerate(answers):
                one.set_result(number)

        in_thread(answer)
        assert await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S) == list(range(64))
    assert len(wakes) == 2


async def test_an_error_is_raised_and_an_answer_that_is_there_already_is_given():
    arrivals, wrong, there = Arrivals(), Future(), Future()
    wrong.set_exception(KeyError("x"))
    there.set_result(3)
    with pytest.raises(KeyError):
        await asyncio.wait_for(arrivals.of(wrong), WAIT_S)
    assert await asyncio.wait_for(arrivals.of(there), WAIT_S) == 3


async def test_who_gives_up_cancels_and_stops_nobody_else():
    arrivals, gone, late, stays = Arrivals(), Future(), Future(), Future()
    late.set_running_or_notify_cancel()  # it runs: it cannot be cancelled any more
    waiting = [asyncio.ensure_future(arrivals.of(one)) for one in (gone, late, stays)]
    await asyncio.sleep(0)
    for one in waiting[:2]:
        one.cancel()
    await asyncio.wait(waiting[:2])
    assert gone.cancelled()
    in_thread(lambda: (late.set_result(1), stays.set_result(2)))
    assert await asyncio.wait_for(waiting[2], WAIT_S) == 2


def test_answers_of_many_threads_all_come():
    arrivals, answers = Arrivals(), [Future() for _ in range(400)]

    async def wait():
        waiting = [asyncio.ensure_future(arrivals.of(answer)) for answer in answers]
        await asyncio.sleep(0)
        begun.set()
        return await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)

    def answer(first):
        assert begun.wait(WAIT_S)
        for number in range(first, len(answers), 4):
            answers[number].set_result(number)

    begun = threading.Event()
    threads = [threading.Thread(target=answer, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    assert asyncio.run(wait()) == list(range(400))
    for thread in threads:
        thread.join(WAIT_S)
