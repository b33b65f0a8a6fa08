"""What every protocol of the gateway works with."""

import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Reject
from streamapp.core.metrics import Metrics
from streamapp.gateway.attachments import Attachments, attachments_of
from streamapp.gateway.budget import Budget
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.delivery import Delivery
from streamapp.gateway.life import Life
from streamapp.gateway.plain import Events, Outcome, tried
from streamapp.gateway.problem import ProblemError
from streamapp.gateway.schemas.learned import Learned
from streamapp.gateway.schemas.rules import Rules, rules_of
from streamapp.gateway.schemas.watch import Watch
from streamapp.gateway.stamp import Stamped
from streamapp.topics.catalogue import Catalogue
from streamapp.transport.clients import Admin, Members, Producer, Reader

if TYPE_CHECKING:  # a gateway that nobody asks for a model loads none of that
    from streamapp.models import Registry

#: Topics whose values are events name a schema of this family; on the others (batches, dead
#: letters) a client's JSON would be poison.
_EVENT_SCHEMA = "event."


class Target(NamedTuple):
    """A topic that clients may send events to; ``rules`` check them, None: nobody does."""

    name: str
    event_bytes_max: int
    rules: Rules | None = None


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
    producer: Producer
    watch: Watch
    reader: Reader | None = None
    members: Members | None = None
    attachments: Attachments | None = None
    #: Makes the registry of models that ``/v2`` serves; None: it serves none.
    models: "Callable[[], Registry] | None" = None
    #: Awaited, in this order, before the gateway takes its first request.
    opening: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
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

    def settlings(self, target: Target, events: Events) -> Iterator[tuple[int, Outcome | None]]:
        """The places of those events that may not go as they are, and what becomes of each.

        None: it goes as it is.
        """
        places: set[int] = set()
        if self.watch.guess:
            places.update(place for place, kind in enumerate(events.types) if kind is None)
        if target.rules is not None:
            places.update(target.rules.doubtful(events.values()))
        for place in sorted(places):
            event = events.one(place)
            outcome = tried(partial(self.settled, target, event))
            yield place, None if outcome is event else outcome

    def settled(self, target: Target, stamped: Stamped) -> Stamped:
        """An event as it may be sent: with a type, if it looks like one, and as its topic wants it.

        Raises:
            Reject: ``event.schema``.
        """
        if not stamped.typed:
            stamped = self.watch.guess.typed(stamped)
        if target.rules is None:
            return stamped
        try:
            return target.rules.judged(stamped)
        except Reject as error:
            self.watch.newest.refused(target.name, stamped, self.clock.now_us(), error.message)
            raise


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
    is_watched: bool = True,
    models: "Callable[[], Registry] | None" = None,
) -> Gateway:
    """Put the parts together; nothing is started.

    Raises:
        Refuse: a topic's schema is none.
    """
    targets = {
        topic.name: Target(
            topic.name,
            min(config.event_bytes_max, topic.record_bytes_max),
            rules_of(topic, catalogue, metrics),
        )
        for topic in catalogue
        if topic.schema is not None and topic.schema.startswith(_EVENT_SCHEMA)
    }
    budget = Budget(events_max=config.inflight_events_max, bytes_max=config.inflight_bytes_max)
    metrics.inflight_events.set_function(lambda: budget.events)
    life = Life()
    watch = Watch(frozenset(targets), Learned(_writer(config)), config.learn, clock)
    on_sent = watch.sent if is_watched else None
    return Gateway(
        config=config,
        metrics=metrics,
        targets=targets,
        declared=frozenset(catalogue.topics),
        budget=budget,
        delivery=Delivery(producer, metrics, life, clock=clock, on_sent=on_sent),
        life=life,
        clock=clock,
        admin=admin,
        producer=producer,
        watch=watch,
        reader=reader,
        members=members,
        models=models,
        attachments=attachments_of(
            config.attachments_url,
            config.attachments_bytes_max,
            clock,
            event_bytes_max=config.event_bytes_max,
        ),
    )


def _writer(config: GatewayConfig) -> str:
    """A name for this gateway that it has after a restart, too, where its port is its own."""
    return f"{socket.gethostname()}:{config.port}" if config.port else str(uuid4())
