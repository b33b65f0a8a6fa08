"""Who gets which partitions: Faust's own assignor, in Kafka's own encoding.

Tables, recovery, standbys of global tables, routing and the web views all read what the assignor
decided, so it decides here too.  What it says to the members is opaque to the log.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from faust.types import TP


class _Cluster:
    """The little the assignor asks of Kafka's metadata."""

    def __init__(self, partitions: Callable[[str], int | None]) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._partitions(topic) or 0))


def metadata(app: Any, topics: Collection[str]) -> bytes:
    """What the assigning member is to know of this app: its topics and what it held before."""
    encoded: bytes = app.assignor.metadata(set(topics)).encode()
    return encoded


def assign(
    app: Any, members: Mapping[str, bytes], partitions: Callable[[str], int | None]
) -> dict[str, bytes]:
    """What each member gets.

    Args:
        app: whose assignor decides.
        members: their :func:`metadata`.
        partitions: the number of partitions of a topic, None where there is no such topic.
    """
    known = {
        member: ConsumerProtocolMemberMetadata.decode(encoded)
        for member, encoded in members.items()
    }
    plan = app.assignor.assign(_Cluster(partitions), known)
    return {member: assignment.encode() for member, assignment in plan.items()}


def take(app: Any, assignment: bytes) -> set[TP]:
    """Tell this app's assignor what the app got; the partitions."""
    decoded = ConsumerProtocolMemberAssignment.decode(assignment)
    app.assignor.on_assignment(decoded)
    return {TP(topic, number) for topic, numbers in decoded.assignment for number in numbers}
