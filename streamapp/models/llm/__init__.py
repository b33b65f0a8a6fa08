"""Language models behind an OpenAI-compatible server, asked for JSON.

    async with Llm(Endpoint("http://127.0.0.1:1234/v1"), Metrics()) as llm:
        answer = await llm.ask(question)

``steps.py`` says what is asked, and when again, without a socket; ``client.py`` has the sockets.
Errors are those of :mod:`streamapp.core.errors`: ``Retry`` no answer in time, ``Reject`` an answer
that is none, ``Refuse`` not the server that was declared.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy
from streamapp.models.llm.endpoint import Endpoint
from streamapp.models.llm.question import Answer, Question

if TYPE_CHECKING:
    from streamapp.models.llm.blocking import Chat
    from streamapp.models.llm.cache import Cache
    from streamapp.models.llm.client import Llm

__all__ = ["Answer", "Cache", "Chat", "Endpoint", "Llm", "Question"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Cache": "streamapp.models.llm.cache",
        "Chat": "streamapp.models.llm.blocking",
        "Llm": "streamapp.models.llm.client",  # which loads aiohttp
    },
)
