"""``streamapp topics``: what the log has, and making it have what the catalogue declares."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import click

from streamapp.cli.framework import group
from streamapp.cli.options import json_option, missing_log, settings_options
from streamapp.cli.output import print_json, print_table
from streamapp.core.config import Settings
from streamapp.core.counted import counted
from streamapp.core.errors import Refuse


class PartitionState(NamedTuple):
    """One partition as the log has it; ``lag`` of each group that committed in it."""

    partition: int
    begin: int
    end: int
    lag: dict[str, int]


class TopicState(NamedTuple):
    """One topic; ``bytes`` is None where the log does not tell."""

    topic: str
    records: int
    bytes: int | None
    lag: dict[str, int]
    partitions: list[PartitionState]


@group(examples=["streamapp topics apply", "streamapp topics ls"])
def topics() -> None:
    """List the log's topics, or create those that the catalogue declares."""


@topics.command(
    examples=[
        "streamapp topics ls",
        "streamapp topics ls --partitions",
        "streamapp topics ls --group my-app --json",
    ],
)
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Lag of this group only.")
@click.option("--partitions", is_flag=True, help="A line for each partition.")
@json_option
@settings_options("broker")
def ls(settings: Settings, groups: tuple[str, ...], partitions: bool, as_json: bool) -> None:
    """List topics with what they hold and the lag of every consumer group.

    RECORDS is the number of offsets from the first one still kept to the end (of a compacted topic
    some are gone), BYTES what the topic takes on disk.  Lag is what a group has not committed yet;
    a group that never committed is not shown.
    """
    if (folder := missing_log(settings)) is not None:
        raise Refuse(
            "log.missing",
            f"there is no log at {folder}",
            "name another with --home or --broker, or make it: streamapp topics apply",
        )
    states = asyncio.run(inspect(settings, groups))
    if as_json:
        print_json([_as_json(state) for state in states])
    elif partitions:
        numbers = ("partition", "begin", "end", "records")
        rows = [
            (state.topic, part.partition, part.begin, part.end, part.end - part.begin, _lag(part))
            for state in states
            for part in state.partitions
        ]
        print_table(("topic", *numbers, "lag"), rows, right=numbers)
    else:
        sums = ("partitions", "records", "bytes")
        totals = [
            (state.topic, len(state.partitions), state.records, state.bytes, _lag(state))
            for state in states
        ]
        print_table(("topic", *sums, "lag"), totals, right=sums)
    for name in groups:
        if not any(name in state.lag for state in states):
            click.echo(f"group {name!r} has committed nothing on this log", err=True)


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
        click.echo(f"{did}  {topic.name}  {counted(topic.partitions, 'partition')}")


async def inspect(settings: Settings, groups: Sequence[str] = ()) -> list[TopicState]:
    """Every topic of the log, with the lag of these groups, or of all."""
    from streamapp import compose

    admin, reader = compose.admin(settings), compose.reader(settings)
    async with AsyncExitStack() as stack:
        for client in (admin, reader):
            await client.start()
            stack.push_async_callback(client.stop)
        names = groups or await admin.groups()
        committed = {name: await admin.committed(name) for name in names}
        states = []
        for spec in sorted((await admin.topics()).values()):
            parts = []
            for partition in range(spec.partitions):
                begin, end = await reader.bounds(spec.name, partition)
                lag = _lags(committed, (spec.name, partition), begin, end)
                parts.append(PartitionState(partition, begin, end, lag))
            states.append(_topic(spec.name, await admin.bytes_kept(spec.name), parts))
        return states


def _topic(name: str, bytes_kept: int | None, parts: list[PartitionState]) -> TopicState:
    lag: Counter[str] = Counter()
    for part in parts:
        lag.update(part.lag)
    records = sum(part.end - part.begin for part in parts)
    return TopicState(name, records, bytes_kept, dict(lag), parts)


def _lags(
    committed: Mapping[str, Mapping[tuple[str, int], int]],
    address: tuple[str, int],
    begin: int,
    end: int,
) -> dict[str, int]:
    return {
        name: end - min(max(begin, offsets[address]), end)
        for name, offsets in committed.items()
        if address in offsets
    }


def _lag(state: TopicState | PartitionState) -> str:
    return "  ".join(f"{name} {lag}" for name, lag in sorted(state.lag.items()))


def _as_json(state: TopicState) -> dict[str, Any]:
    return {**state._asdict(), "partitions": [part._asdict() for part in state.partitions]}
