"""Started clients of a log, for a test."""

from contextlib import AsyncExitStack, asynccontextmanager

from streamapp.agents.lanes import Log
from streamapp.topics import catalogue
from streamapp.transport import TopicSpec, open_admin, open_members, open_producer, open_reader
from streamapp.transport.clients import started


@asynccontextmanager
async def opened(url, *kinds):
    """A client by each of these functions; they are stopped at the end."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(started(open_(url))) for open_ in kinds]


@asynccontextmanager
async def member_log(url, specs=()):
    """What a plain member of a group works with, on a log with these topics."""
    async with opened(url, open_reader, open_producer, open_admin, open_members) as clients:
        log = Log(*clients)
        there = await log.admin.topics()
        for spec in specs:
            if spec.name not in there:
                await log.admin.create(spec)
        yield log


def specs_of_asks():
    """The topics of asks and answers."""
    topics = catalogue.load(None, catalogue.ASKS)
    return [TopicSpec(*one.log_spec()) for one in topics if one.name in catalogue.ASKS]
