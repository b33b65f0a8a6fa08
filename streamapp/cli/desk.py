"""What the verbs of ``streamapp dlq`` share: the log they look at, and which letters are meant."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import Any, NamedTuple

import click

from streamapp.agents.letters import Found, Letters, Wanted
from streamapp.agents.purge import Purge
from streamapp.agents.replay import Chosen, Failed, Replays
from streamapp.cli.letters import Listing, Some, print_listing
from streamapp.cli.options import Command, missing_log, settings_options
from streamapp.cli.scanning import WhenParam, watched
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse
from streamapp.topics.catalogue import DEAD
from streamapp.topics.dead import Letter, LetterAddress
from streamapp.transport.clients import Admin

LISTED = 20
#: Why nothing should be done with a letter; None when nothing is against it.
Reason = Callable[[Found, Letters], Refuse | None]


class Desk(NamedTuple):
    """The letters of a log, what sends them, and what erases them."""

    letters: Letters
    replays: Replays
    admin: Admin


def where(command: Command) -> Command:
    """The log and the topic."""
    topic = click.option(
        "--dead-topic", "topic", default=DEAD, show_default=True, metavar="TOPIC",
        help="The topic that has the dead letters.",
    )  # fmt: skip
    return topic(settings_options("broker")(command))


def which(command: Command) -> Command:
    """Which letters are meant; the command gets them as ``wanted``, None where nobody said so."""

    @wraps(command)
    def run(
        stage: str | None, code: str | None, source_topic: str | None, since: int | None,
        before: int | None, **arguments: Any,
    ) -> Any:  # fmt: skip
        wanted = Wanted(stage, code, source_topic, since, before)
        return command(wanted=None if wanted == Wanted() else wanted, **arguments)

    for option in (
        click.option("--before", type=WhenParam(), help="What failed before: 7d, a date."),
        click.option("--since", type=WhenParam(), help="What failed since: 2h, 7d, a date."),
        click.option("--topic", "source_topic", help="What came from this topic."),
        click.option("--code", help="What failed with this code; event.* for several."),
        click.option("--stage", help="What failed in this stage."),
    ):  # fmt: skip
        run = option(run)
    return run


@asynccontextmanager
async def opened(settings: Settings, topic: str) -> AsyncIterator[Desk]:
    """The letters of a topic of the settings' log.

    Raises:
        Refuse: there is no such log, or no such topic.
        Retry: the log does not answer.
    """
    from streamapp import compose

    if (folder := missing_log(settings)) is not None:
        raise Refuse(
            "log.missing",
            f"there is no log at {folder}",
            "name another with --home or --broker, or make it: streamapp topics apply",
        )
    admin, reader = compose.admin(settings), compose.reader(settings)
    producer = compose.producer(settings)
    async with AsyncExitStack() as stack:
        for client in (admin, reader, producer):
            await client.start()
            stack.push_async_callback(client.stop)
        letters = Letters(reader, topic, await admin.topics())
        yield Desk(letters, Replays(letters, producer), admin)


async def seen(letters: Letters, bounds: Mapping[int, tuple[int, int]]) -> AsyncIterator[Found]:
    """Every letter within bounds, newest first, purged ones too, under a progress bar."""
    with watched("reading", sum(end - begin for begin, end in bounds.values())) as step:
        async for found in letters.newest(bounds, step):
            yield found


async def one_letter(
    settings: Settings,
    topic: str,
    address: str,
    reason: Reason = lambda *_: None,
) -> tuple[Found, Letter]:
    """The letter at an address.

    Raises:
        Refuse: there is none, or there is a reason against it.
    """
    at = LetterAddress.parse(address)
    async with opened(settings, topic) as desk:
        found = (await desk.letters.at([at]))[at]
        if (error := reason(found, desk.letters)) is not None:
            raise error
        return found, await desk.letters.whole(at)


def replayable(
    settings: Settings,
    topic: str,
    addresses: Sequence[str],
    wanted: Wanted | None,
    everything: bool,
    reason: Reason,
) -> tuple[Chosen, Listing, Some[Failed]]:
    """The letters at addresses, or those that are meant, what to show of them, and the others.

    Raises:
        Refuse: an address has no letter, or there is a reason against one that was named.
    """
    named = _named(addresses, wanted, everything)
    return asyncio.run(_replayable(settings, topic, named, wanted or Wanted(), reason))


def purgeable(
    settings: Settings,
    topic: str,
    addresses: Sequence[str],
    wanted: Wanted | None,
    everything: bool,
) -> tuple[Purge, Listing]:
    """A purge of the letters at addresses, or of those that are meant, and what to show of them.

    One look through the topic says both what is meant and what can be erased.

    Raises:
        Refuse: an address has no letter.
    """
    named = _named(addresses, wanted, everything)
    return asyncio.run(_purgeable(settings, topic, named, wanted or Wanted()))


def _named(
    addresses: Sequence[str], wanted: Wanted | None, everything: bool
) -> list[LetterAddress]:
    ways = bool(addresses) + (wanted is not None or everything)
    if ways != 1:
        raise click.UsageError(
            "name letters by their addresses, or choose them with --all, --stage, --code, --topic, "
            "--since and --before" + (", not both" if ways else ""),
            click.get_current_context(),
        )
    return list(dict.fromkeys(map(LetterAddress.parse, addresses)))


async def _replayable(
    settings: Settings,
    topic: str,
    named: Sequence[LetterAddress],
    wanted: Wanted,
    reason: Reason,
) -> tuple[Chosen, Listing, Some[Failed]]:
    chosen, listing, skipped = Chosen(), Listing(), Some[Failed]()
    async with opened(settings, topic) as desk:
        if named:
            there = await desk.letters.at(named)
            for at in sorted(there, reverse=True):
                if (error := reason(there[at], desk.letters)) is not None:
                    raise error
                chosen.see(there[at])
                listing.add(there[at], LISTED)
            return chosen, listing, skipped
        async for found in seen(desk.letters, await desk.letters.bounds()):
            if not wanted.takes(found):
                continue
            if (error := reason(found, desk.letters)) is not None:
                skipped.add(Failed(found.letter.address, error))
                continue
            chosen.see(found)
            listing.add(found, LISTED)
        return chosen, listing, skipped


async def _purgeable(
    settings: Settings, topic: str, named: Sequence[LetterAddress], wanted: Wanted
) -> tuple[Purge, Listing]:
    async with opened(settings, topic) as desk:
        bounds = await desk.letters.bounds()
        desk.letters.check_within(named, bounds)
        meant = set(named)
        there: dict[LetterAddress, Found] = {}
        purge, listing = Purge(bounds), Listing()
        async for found in seen(desk.letters, bounds):
            at = found.letter.address
            if at in meant:
                there[at] = found
            chosen = at in meant if meant else wanted.takes(found)
            purge.see(found, chosen=chosen)
            if chosen:
                listing.add(found, LISTED)
        desk.letters.check_found(named, there, bounds)
        return purge, listing


def confirm(question: str, listing: Listing, *, yes: bool, as_json: bool) -> None:
    """Show the letters, and go on when somebody says yes."""
    if not as_json:
        print_listing(listing)
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refuse(
            "dlq.confirm",
            f"{question} nobody is here to answer",
            "say --yes, or name fewer letters",
        )
    click.confirm(question, abort=True, err=True)
