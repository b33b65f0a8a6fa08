"""Partitions for a group's only member, through Faust's own assignor.

Tables, recovery, standbys of global tables, routing and the web views all read what the assignor
decided, so it decides here too: it is given a cluster of our topics and a group of one.
"""

from collections.abc import Mapping
from typing import Any

from faust.types import TP


class _Cluster:
    """The little the assignor asks of Kafka's metadata."""

    def __init__(self, partitions: Mapping[str, int]) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._partitions.get(topic, 0)))


def assign(app: Any, partitions: Mapping[str, int]) -> set[TP]:
    """Assign all partitions of the subscribed topics (name to count) to this app; returns them."""
    member = str(app.conf.id)
    metadata = app.assignor.metadata(set(partitions))
    plan = app.assignor.assign(_Cluster(partitions), {member: metadata})[member]
    app.assignor.on_assignment(plan)
    return {TP(topic, number) for topic, numbers in plan.assignment for number in numbers}
