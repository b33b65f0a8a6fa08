import asyncio

import pytest

from streamapp.client import AsyncClient, Client


class Blocking:
    """An AsyncClient with the methods of a Client."""

    def __init__(self, *args, **options):
        self._client = AsyncClient(*args, **options)
        self._loop = asyncio.new_event_loop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._do(self._client.close())
        self._loop.close()

    def __getattr__(self, name):
        found = getattr(self._client, name)
        return (lambda *a, **k: self._do(found(*a, **k))) if callable(found) else found

    def stream(self, *args, **options):
        async def all_():
            return [outcome async for outcome in self._client.stream(*args, **options)]

        return iter(self._do(all_()))

    def _do(self, work):
        return self._loop.run_until_complete(work)


@pytest.fixture(params=[Client, Blocking], ids=["blocking", "async"])
def kind(request):
    """Each of the two clients, as one that blocks."""
    return request.param
