"""A route over models that do as they are told, run on partitions whose states are kept as published."""

from types import SimpleNamespace

import msgspec

from streamapp.core.model import ModelRef
from streamapp.core.route import Answered, Event
from streamapp.models.routing.answers import Label
from streamapp.models.routing.epoch import Epochs
from streamapp.models.routing.given import Given
from streamapp.models.routing.router import Router
from streamapp.models.routing.spec import RouteSpec
from streamapp.models.routing.standing import KIND
from streamapp.testing.clock import FakeClock
from streamapp.workflow import PartitionState

FACTS = {"a": {"accuracy": 0.9}, "b": {"accuracy": 0.8}, "c": {"accuracy": 0.7}}


class Models:
    """Models that say their own name, take their time by the test's clock, and fail as told."""

    def __init__(self, clock, names="abc"):
        self.clock = clock
        self.by_name = {}
        self.seconds = dict.fromkeys(names, 0.001)
        self.errors = {}
        self.calls = []
        for name in names:
            self.put(name, 1)

    def put(self, name, version):
        digest = f"{name}{version}".encode().hex().ljust(64, "0")
        ref = ModelRef("classify", name, version, digest)
        self.by_name[name] = SimpleNamespace(ref=ref)

    def ask(self, model, rows):
        name = model.ref.name
        self.calls.append((name, rows.tolist()))
        self.clock.advance(self.seconds[name] * len(rows))
        if name in self.errors:
            raise self.errors[name]
        said = Label(name, 0.9, {name: 0.9})
        return [Answered(said, name, 0.9) for _ in rows]


class Partition:
    """A source partition: its state as the worker has it, its states as the log has them."""

    def __init__(self):
        self.state = PartitionState(100)
        self.published = []
        self.next = 0


class Bench:
    """A route over models, and partitions to run it on."""

    def __init__(self, **declared):
        self.clock = FakeClock()
        self.models = Models(self.clock)
        plain = {"task": "classify", "models": ["a", "b", "c"], "facts": FACTS, "ahead_events": 0}
        self.spec = msgspec.convert({**plain, **declared}, RouteSpec)
        self.told = []
        self.router = self.made()
        self.partition = Partition()

    def made(self):
        given = Given(self.spec, self.models.by_name)
        router = Router("r", given, self.clock, lambda *told: self.told.append(told))
        router.open()
        return router

    def run(self, count=4, partition=None, **said):
        events = [Event(f"k{at}", 3, "en")._replace(**said) for at in range(count)]
        return self.run_events(events, partition)

    def run_events(self, events, partition=None):
        partition = partition or self.partition
        offsets = list(range(partition.next, partition.next + len(events)))
        overlay = partition.state.overlay()
        found = self.router.run(events, offsets, self.models.ask, overlay.view("classify"))
        overlay.commit()
        partition.published.append(overlay.changes)
        partition.next += len(events)
        return found

    def epochs(self, partition=None):
        value = (partition or self.partition).state.overlay().view("classify").get(KIND, "r")
        return Epochs.of(value)


def by(found):
    return [None if each is None else each.name for each in found.answers]


def column(found, name):
    return [row[name] for row in found.routes.to_pylist()]
