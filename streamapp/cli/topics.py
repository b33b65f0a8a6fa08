"""``streamapp topics``: what the log has, and making it have what the catalogue declares."""

import asyncio
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, missing_log, settings_options
from streamapp.cli.output import print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.errors import Refuse

#: The consumer groups of our own processes on this host.
GROUPS = ("streamapp-enrich", "streamapp-store", f"streamapp-mirror-{socket.gethostname()}")


class PartitionState(NamedTuple):
    """One partition of a topic as the log has it; ``lag`` of each group that ever committed."""

    topic: str
    partition: int
    begin: int
    end: int
    lag: dict[str, int]


@group(examples=["streamapp topics apply", "streamapp topics ls"])
def topics() -> None:
    """List the log's topics, or create those that the catalogue declares."""


@topics.command(
    examples=["streamapp topics ls", "streamapp topics ls --group my-app --json"],
)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Lag of this group as well.")
@json_option
@settings_options("broker")
def ls(settings: Settings, groups: tuple[str, ...], as_json: bool) -> None:
    """List topics with their partitions, offsets and the lag of consumer groups.

    BEGIN is the first offset still kept, END one past the last.  Lag is what a group has not
    committed yet; a group that never committed is not shown.
    """
    if (folder := missing_log(settings)) is not None:
        raise Refuse(
            "log.missing",
            f"there is no log at {folder}",
            "name another with --home or --broker, or make it: streamapp topics apply",
        )
    states = asyncio.run(inspect(settings.broker_url, (*GROUPS, *groups)))
    if as_json:
        print_json([state._asdict() for state in states])
        return
    rows = [
        (state.topic, state.partition, state.begin, state.end, state.end - state.begin, _lag(state))
        for state in states
    ]
    numbers = ("partition", "begin", "end", "records")
    print_table(("topic", *numbers, "lag"), rows, right=numbers)


@topics.command(
    examples=["streamapp topics apply", "streamapp topics apply --broker kafka+batch://host:9092"],
)
@json_option
@settings_options("broker", "topics_dir")
def apply(settings: Settings, as_json: bool) -> None:
    """Create the topics that the catalogue declares and the log does not have.

    Nothing that exists is changed.  A topic with another number of partitions is refused: these
    never change in place.
    """
    from streamapp.compose import catalogue, ensure_topics

    declared = list(catalogue(settings))
    created = asyncio.run(ensure_topics(settings))
    if as_json:
        print_json({topic.name: topic.name in created for topic in declared})
        return
    for topic in declared:
        did = "created" if topic.name in created else "exists "
        click.echo(f"{did}  {topic.name}  {topic.partitions} partitions")


async def inspect(url: str, groups: tuple[str, ...]) -> list[PartitionState]:
    """Every partition of every topic of the log."""
    from streamapp.transport import open_admin, open_reader

    admin, reader = open_admin(url), open_reader(url)
    async with AsyncExitStack() as stack:
        for client in (admin, reader):
            await client.start()
            stack.push_async_callback(client.stop)
        committed = {name: await admin.committed(name) for name in groups}
        states = []
        for spec in sorted((await admin.topics()).values()):
            for partition in range(spec.partitions):
                begin, end = await reader.bounds(spec.name, partition)
                lag = _lags(committed, (spec.name, partition), begin, end)
                states.append(PartitionState(spec.name, partition, begin, end, lag))
        return states


def _lags(
    committed: Mapping[str, Mapping[tuple[str, int], int]],
    address: tuple[str, int],
    begin: int,
    end: int,
) -> dict[str, int]:
    return {
        name: end - max(begin, offsets[address])
        for name, offsets in committed.items()
        if address in offsets
    }


def _lag(state: PartitionState) -> Any:
    return "  ".join(f"{name} {lag}" for name, lag in state.lag.items())
