"""A first connection to a real broker that does not come about."""

import asyncio

import pytest

from streamapp.transport import open_reader
from streamapp.transport.kafka import connection


async def test_a_start_that_is_given_up_leaves_no_connection_open(kafka, monkeypatch):
    """The broker takes the connection, says its versions, and then nothing more."""
    made, asked = [], asyncio.Event()
    create = connection.create_conn

    async def silent(*arguments, **options):
        found = await create(*arguments, **options)

        async def never(_request):
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(found, "send", never)
        made.append(found)
        return found

    monkeypatch.setattr(connection, "create_conn", silent)
    starting = asyncio.create_task(open_reader(kafka.url).start())
    await asked.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert [one.connected() for one in made] == [False]
