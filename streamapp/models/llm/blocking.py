"""The client for programs without an event loop: a thread of its own has one."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self

from streamapp.models.llm.client import Llm
from streamapp.models.llm.question import Answer, Question


class Chat:
    """Asks a language model; any thread may call.  Not for stages: a batch would wait for it.

    Args:
        make: makes the client, in the thread that it lives in.
    """

    def __init__(self, make: Callable[[], Llm]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="streamapp-llm", daemon=True
        )
        self._thread.start()
        self._llm = asyncio.run_coroutine_threadsafe(_made(make), self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, question: Question) -> Answer:
        """As :meth:`streamapp.models.llm.client.Llm.ask`."""
        future = asyncio.run_coroutine_threadsafe(self._llm.ask(question), self._loop)
        return future.result()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._llm.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _made(make: Callable[[], Llm]) -> Llm:
    return make()
