"""``streamapp dlq``: look at dead letters, send them again, mend them, be rid of them."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from streamapp.agents.letters import Found, Letters, Wanted
from streamapp.agents.purge import Purge
from streamapp.agents.replay import (
    REPLAYS_MAX,
    Chosen,
    Sent,
    event_of,
    identity,
    objection,
)
from streamapp.cli.desk import (
    LISTED,
    confirm,
    one_letter,
    opened,
    purgeable,
    replayable,
    seen,
    where,
    which,
)
from streamapp.cli.editing import Editing, parse_field, with_fields
from streamapp.cli.framework import group
from streamapp.cli.letters import (
    Listing,
    Outcome,
    listing_as_dict,
    outcome_as_dict,
    page,
    print_listing,
    print_outcome,
    whole_as_dict,
)
from streamapp.cli.options import json_option
from streamapp.cli.output import print_json
from streamapp.cli.scanning import watched
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse, StreamappError
from streamapp.topics.dead import Letter

EXIT_FAILED = 65  # EX_DATAERR
#: More letters than these are not replayed before somebody says yes.
FEW = 3


@group(examples=["streamapp dlq ls", "streamapp dlq replay --code 'stage.*'"])
def dlq() -> None:
    """Dead letters: events that failed for good, with where and why.

    They are on topic events.dead with their original bytes, on any log, whether or not a store or
    a worker runs.
    """


_addresses = click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
_address = click.argument("address")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_all = click.option("--all", "everything", is_flag=True, help="All letters.")
_force = click.option("--force", is_flag=True, help="Also what was replayed before, however often.")
_replays_max = click.option(
    "--replays-max", type=click.IntRange(min=1), default=REPLAYS_MAX, show_default=True,
    metavar="N", help="How often one event may be replayed.",
)  # fmt: skip


@dlq.command(
    examples=[
        "streamapp dlq ls",
        "streamapp dlq ls --code 'event.*' --since 2h",
        "streamapp dlq ls --json --limit 1000 | jq -r .shown[].address",
    ],
)
@which
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    default=LISTED,
    show_default=True,
    metavar="N",
    help="Letters listed.",
)
@json_option
@where
def ls(settings: Settings, topic: str, wanted: Wanted | None, limit: int, as_json: bool) -> None:
    """List dead letters, newest first, under counts by stage and code.

    ADDRESS is what the other verbs take.  REPLAYS counts how often the event was sent again.
    Letters that were purged are not shown.
    """
    meant = wanted or Wanted()

    async def look() -> Listing:
        listing = Listing()
        async with opened(settings, topic) as desk:
            async for found in seen(desk.letters, await desk.letters.bounds()):
                if meant.takes(found):
                    listing.add(found, limit)
        return listing

    listing = asyncio.run(look())
    if as_json:
        print_json(listing_as_dict(topic, listing))
    elif listing.counts:
        print_listing(listing)
    else:
        click.echo(f"no dead letters on {topic}" + (" that are meant" if wanted else ""))


@dlq.command(
    examples=["streamapp dlq show 0:17", "streamapp dlq show 0:17 --raw > original"],
)
@_address
@click.option("--raw", is_flag=True, help="Write the original value's bytes and nothing else.")
@json_option
@where
def show(settings: Settings, topic: str, address: str, raw: bool, as_json: bool) -> None:
    """Show all there is of one letter.

    That is its reason, source and headers, how often it was replayed, and the original value: JSON
    indented, what is no text in hex.
    """
    found, letter = asyncio.run(one_letter(settings, topic, address))
    if raw:
        click.get_binary_stream("stdout").write(letter.value or b"")
    elif as_json:
        print_json(whole_as_dict(found, letter))
    else:
        click.echo(page(found, letter, topic))


@dlq.command(
    examples=[
        "streamapp dlq replay 0:17 0:18",
        "streamapp dlq replay --code stage.error --since 2h",
        "streamapp dlq replay --all --yes",
    ],
)
@_addresses
@which
@_all
@_replays_max
@_force
@_yes
@json_option
@where
def replay(
    settings: Settings, topic: str, addresses: Sequence[str], wanted: Wanted | None,
    everything: bool, replays_max: int, force: bool, yes: bool, as_json: bool,
) -> int:  # fmt: skip
    """Send letters to the topic they came from, once more.

    Oldest first, each as the event that it is: key, value, headers and id stay the same.  So an
    event is stored once however often it is sent within the store's dedup window, also when a
    replay was killed and is run again.  A letter is replayed once, and an event at most
    --replays-max times; --force insists.  Of more than 100,000 the oldest go, and the last line
    says how many are left: run it again for those.

    What is replayed stays on its topic, marked.  The exit code is 65 when a letter was not sent.
    """

    def reason(found: Found, letters: Letters) -> Refuse | None:
        return objection(found, letters, replays_max=replays_max, force=force)

    chosen, listing, skipped = replayable(settings, topic, addresses, wanted, everything, reason)
    if len(chosen) > FEW:
        confirm(f"replay {counted(len(chosen), 'letter')}?", listing, yes=yes, as_json=as_json)
    outcome = Outcome(skipped, left=len(chosen))
    if chosen:
        asyncio.run(_replay(settings, topic, chosen, outcome))
    if as_json:
        print_json(outcome_as_dict(outcome))
    else:
        print_outcome(outcome)
    if outcome.left:
        raise click.Abort
    return EXIT_FAILED if outcome.failed.count else 0


@dlq.command(
    examples=[
        "streamapp dlq edit 0:17",
        "streamapp dlq edit 0:17 --set message='hello' --set duration_ms=250",
        "streamapp dlq show 0:17 --raw | sed s/,}/}/ | streamapp dlq edit 0:17 --file -",
    ],
)
@_address
@click.option(
    "--set", "fields", multiple=True, metavar="FIELD=VALUE",
    help="Set a member of the JSON object instead (the value is JSON, or else text).",
)  # fmt: skip
@click.option(
    "--file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Take the new value from a file instead, - for standard input.",
)  # fmt: skip
@_replays_max
@_force
@json_option
@where
def edit(
    settings: Settings, topic: str, address: str, fields: Sequence[str], file: Path | None,
    replays_max: int, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Mend a letter in your EDITOR and replay it with its id.

    What is saved must be an event.  Nothing is sent when nothing was changed, or all was removed.
    The letter keeps its original value.
    """
    if fields and file is not None:
        raise click.UsageError("choose one of --set and --file", click.get_current_context())
    changes = dict(map(parse_field, fields))

    def reason(found: Found, letters: Letters) -> Refuse | None:
        return objection(found, letters, replays_max=replays_max, force=force)

    found, letter = asyncio.run(one_letter(settings, topic, address, reason))

    def check(value: bytes) -> bytes:
        return _checked(letter, value)

    async def send(value: bytes) -> Sent:
        async with opened(settings, topic) as desk:
            return await desk.replays.resend(found, letter, value)

    if changes or file is not None:
        value = with_fields(letter.value, changes) if changes else _read(file)
        sent = asyncio.run(send(check(value)))
    else:
        with Editing() as editing:
            value = editing.run(letter.value or b"", _about(letter, topic), check)
            try:
                sent = asyncio.run(send(value))
            except StreamappError as error:
                kept = f"what you saved is in {editing.keep()}: give it with --file"
                raise type(error)(error.code, error.message, kept) from None
    if as_json:
        print_json({"letter": str(sent.letter), "to": sent.to._asdict()})
    else:
        click.echo(f"{sent.letter} sent to {sent.to}, edited")


@dlq.command(
    examples=[
        "streamapp dlq purge 0:17 0:18",
        "streamapp dlq purge --before 30d",
        "streamapp dlq purge --code event.json --yes",
    ],
)
@_addresses
@which
@_all
@_yes
@json_option
@where
def purge(
    settings: Settings, topic: str, addresses: Sequence[str], wanted: Wanted | None,
    everything: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Purge letters: they are not shown, counted or replayed any more, and erased.

    A log can only be erased from its beginning.  So a purged letter is erased, for whoever reads
    the topic, once no letter before it in its partition is kept.  Until then a mark behind it says
    that it was purged, and the verbs of dlq pass over it.  This erases what was purged before, too.
    What someone else wrote is never erased, and the store's table dead keeps its copy until
    `streamapp store retain` drops it.  On Kafka it takes the right to Delete on the topic.

    Exactly the letters that are counted when you are asked are purged, none that came meanwhile.
    """
    purge, listing = purgeable(settings, topic, addresses, wanted, everything)
    if purge:
        question = f"purge {counted(len(purge), 'letter')}?"
        confirm(question, listing, yes=yes, as_json=as_json)
    refused = asyncio.run(_purge(settings, topic, purge))
    erased, behind = purge.erasable, purge.behind
    if refused:
        erased, behind = 0, erased + behind
    if as_json:
        print_json(
            {"purged": [str(at) for at in purge.addresses], "erased": erased, "behind": behind}
            | {"kept_because": str(refused) if refused else None}
        )
        return
    click.echo(f"purged {counted(len(purge), 'letter')}")
    said = f"erased {counted(erased, 'letter')}"
    if refused:
        said += f": {refused}; what was purged stays until the topic's retention"
    elif behind:
        said += f"; {behind:,} more when what is kept before them goes"
    click.echo(said)


async def _replay(settings: Settings, topic: str, chosen: Chosen, outcome: Outcome) -> None:
    from streamapp.agents.process import stop_signal

    async with opened(settings, topic) as desk:
        stopping = stop_signal()
        with watched("replaying", len(chosen)) as step:
            async for some in desk.replays.replay(chosen):
                outcome.add(some)
                step(len(some))
                if stopping.is_set():
                    return


async def _purge(settings: Settings, topic: str, purge: Purge) -> Refuse | None:
    async with opened(settings, topic) as desk:
        with watched("purging", len(purge)) as step:
            return await purge.run(topic, desk.admin, desk.replays, step)


def _checked(letter: Letter, value: bytes) -> bytes:
    """The edited value.

    Raises:
        Reject: it is no event.
        Refuse: it would be another event, which could be stored beside the one that it mends.
    """
    event = event_of(value, letter.headers)
    said = identity(letter.value, letter.headers)
    for name, before, after in zip(
        ("id", "source"), said or (), (event.id, event.source), strict=False
    ):
        if before and before != after:
            raise Refuse(
                "dlq.identity",
                f"the {name} of the event was {before[:80]!r} and is now {(after or '')[:80]!r}",
                "leave id and source as they are: by them it is stored once",
            )
    if value == letter.value:
        raise Refuse("dlq.unchanged", "nothing was changed: nothing was sent", "change something")
    return value


def _read(file: Path | None) -> bytes:
    if file is None or str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise Refuse("dlq.file", f"{file}: {error.strerror}", "check the path") from None


def _about(letter: Letter, topic: str) -> list[str]:
    where = f"from {letter.source}" if letter.source else ""
    return [
        f"Letter {letter.address} of {topic}, {where}: {letter.stage}, {letter.code}",
        f"{letter.reason}",
        "",
        "Mend the event; these lines are not part of it.  Saved, it is sent with the same id.",
        "Unchanged or empty, nothing is sent.",
    ]
