"""What every protocol of the gateway works with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.metrics import Metrics
from streamapp.gateway.budget import Budget
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.delivery import Delivery
from streamapp.gateway.life import Life
from streamapp.gateway.problem import ProblemError
from streamapp.topics.catalogue import Catalogue
from streamapp.transport.clients import Admin, Members, Producer, Reader

#: Topics whose values are events name a schema of this family; on the others (batches, dead
#: letters) a client's JSON would be poison.
_EVENT_SCHEMA = "event."


class Target(NamedTuple):
    """A topic that clients may send events to."""

    name: str
    event_bytes_max: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway's parts; built by :func:`build`, handed to every protocol's ``routes``."""

    config: GatewayConfig
    metrics: Metrics
    targets: Mapping[str, Target]
    declared: frozenset[str]
    budget: Budget
    delivery: Delivery
    life: Life
    clock: Clock
    admin: Admin | None
    reader: Reader | None = None
    members: Members | None = None
    #: Awaited, in this order, when the gateway has answered its last request.
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def target(self, topic: str) -> Target:
        """The topic to send to.

        Raises:
            ProblemError: 404 undeclared, 403 declared but not for events.
        """
        target = self.targets.get(topic)
        if target is not None:
            return target
        takes = f"events are taken by: {', '.join(sorted(self.targets))}"
        if topic in self.declared:
            raise ProblemError(403, "topic.internal", f"topic {topic!r} takes no events", takes)
        raise ProblemError(404, "topic.unknown", f"no topic is called {topic[:120]!r}", takes)


def build(
    config: GatewayConfig,
    producer: Producer,
    catalogue: Catalogue,
    metrics: Metrics,
    *,
    admin: Admin | None = None,
    reader: Reader | None = None,
    members: Members | None = None,
    clock: Clock = SYSTEM,
) -> Gateway:
    """Put the parts together; nothing is started."""
    targets = {
        topic.name: Target(topic.name, min(config.event_bytes_max, topic.record_bytes_max))
        for topic in catalogue
        if topic.schema is not None and topic.schema.startswith(_EVENT_SCHEMA)
    }
    budget = Budget(events_max=config.inflight_events_max, bytes_max=config.inflight_bytes_max)
    metrics.inflight_events.set_function(lambda: budget.events)
    life = Life()
    return Gateway(
        config=config,
        metrics=metrics,
        targets=targets,
        declared=frozenset(catalogue.topics),
        budget=budget,
        delivery=Delivery(producer, metrics, life, clock=clock),
        life=life,
        clock=clock,
        admin=admin,
        reader=reader,
        members=members,
    )
