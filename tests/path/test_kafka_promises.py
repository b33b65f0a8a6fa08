"""What is promised, under every fault, with real processes, on Kafka and on the embedded log.

Each scenario sends events while something goes wrong, counts them in and rows out, and compares
every column, every dead letter and every state with those of a worker that nobody disturbed.
"""

import asyncio
import http.client
import json
import random
import signal
import time
import urllib.error

import kafka_broker
import pytest
from calm import Calm, all_stored
from fleet import BASE, Fleet, Load, events

pytestmark = pytest.mark.timeout(300)

SESSION_S = 3
#: Events after which the next scenario begins on a new log.
SENT_MAX = 30_000
#: Exit code of a drain that took too long.
DRAIN_LATE = 70


def long_form(*short, soak):
    """A short form for every day, and the long one."""
    marks = [pytest.mark.soak, pytest.mark.timeout(7200)]
    return [pytest.param(*short, id="short"), pytest.param(*soak, id="long", marks=marks)]


def _on(*logs):
    return pytest.mark.parametrize("place", logs, indirect=True)


everywhere = _on("kafka", "local")
#: On the embedded log, test_kill.py kills every day; and whoever is frozen past its session has
#: lost its partitions in the midst of inference to one that had joined, and that leaves again.
on_kafka = _on("kafka", pytest.param("local", marks=pytest.mark.soak))
with_a_broker = _on("kafka")


@pytest.fixture(scope="module")
def place(request, tmp_path_factory):
    """A log that all scenarios of the module share: its broker, if it has one, and its fleet."""
    if request.param == "kafka":
        kafka_broker.require()
    found = Place(request.param, tmp_path_factory)
    yield found
    found.leave()


class Place:
    def __init__(self, log, tmp_path_factory):
        self._log, self._tmp = log, tmp_path_factory
        self._fleets = []
        self.broker = self.fleet = self.calm = None
        self.sent = []

    def enter(self):
        """The fleet in good order; after a scenario that failed, another one on another log."""
        if self.fleet is None or len(self.sent) > SENT_MAX:
            self._build()
        if self.broker is not None:
            self.broker.start()
        fleet, self.fleet = self.fleet, None
        fleet.settle()
        return fleet

    def keep(self, fleet):
        """For the next scenario."""
        self.fleet = fleet

    def leave(self):
        for fleet in self._fleets:
            fleet.stop()
        if self.broker is not None:
            self.broker.remove()

    def _build(self):
        self.leave()
        home = self._tmp.mktemp(self._log)
        calm = Fleet(home / "calm", f"local://{home}/calm-log", stage_s=0.0)
        calm.launch("worker")  # starts beside the broker
        self._fleets = [calm]
        url = f"local://{home}/log"
        if self._log == "kafka":
            self.broker = kafka_broker.brief_broker()
            url = self.broker.start().url
        self.fleet = Fleet(home / "fleet", url, session_s=SESSION_S)
        self._fleets.append(self.fleet)
        self.fleet.start(*BASE)
        self.calm = Calm(calm)
        self.sent = []


@pytest.fixture
def scenario(place, request):
    return Scenario(place, request.node.name)


class Scenario:
    """The fleet, its load, and the comparison at the end."""

    def __init__(self, place, name):
        self._place = place
        self.fleet = place.enter()
        self.broker = place.broker
        self.chance = random.Random(name)
        self._stream = events(f"{name}{len(place.sent)}", seed=20_261_122)

    def load(self, **options):
        """As a context: events come in until it is left."""
        return Load(self.fleet.broker, self._stream, self._place.sent, **options)

    def posts(self):
        """As :meth:`load`, each event once by HTTP, whether it is answered or not."""
        return Posts(self.fleet, self._stream, self._place.sent)

    def moment(self, at_most_s=1.0):
        """Let a random time pass: no condition says when a fault comes."""
        time.sleep(self.chance.uniform(0, at_most_s))

    def check(self):
        """Everything is there once, and as if nothing had happened."""
        self._place.calm.equals(self.fleet, self._place.sent)
        self._place.keep(self.fleet)


class Posts(Load):
    """A careless client: it never sends again."""

    def __init__(self, fleet, stream, sent):
        super().__init__(fleet.broker, (one for one in stream if one.id), sent)
        self._fleet = fleet
        self._unanswered = []

    async def _send(self):
        while not self._enough.is_set():
            one = next(self._stream)
            try:
                await asyncio.to_thread(self._fleet.post, json.loads(one.record.value))
            except urllib.error.HTTPError as error:
                assert error.code == 503, error.read()
                self._unanswered.append(one)
            except (OSError, http.client.HTTPException, json.JSONDecodeError):
                self._unanswered.append(one)
            else:
                self._sent.append(one)

    def taken(self, ids):
        """Count what was taken though nobody said so."""
        self._sent += [one for one in self._unanswered if one.id in ids]


@on_kafka
@pytest.mark.parametrize("rounds", long_form(5, soak=(100,)))
def test_worker_killed(scenario, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            load.more(20)
            scenario.moment()
            fleet.kill("worker")
            if scenario.chance.random() < 0.25:  # and again before it is ready
                fleet.launch("worker")
                scenario.moment(4)
                fleet.kill("worker")
            fleet.start("worker")
    scenario.check()


@everywhere
@pytest.mark.parametrize("rounds", long_form(2, soak=(30,)))
def test_worker_frozen_past_its_session(scenario, rounds):
    """It wakes up in a stage, with partitions that another one has long since."""
    fleet = scenario.fleet
    fleet.start("worker2")
    with scenario.load() as load:
        for number in range(rounds):
            frozen = ("worker", "worker2")[number % 2]
            load.more(20)
            fleet.hold_in_a_stage(frozen)
            fleet.freeze(frozen)
            fleet.let_go()
            all_stored(fleet)  # so the other one has all partitions
            fleet.signal(frozen, signal.SIGCONT)
            load.more(50)
    scenario.check()
    assert fleet.terminate("worker2") == {0}, fleet.tail("worker2")


@on_kafka
@pytest.mark.parametrize("rounds", long_form(1, soak=(30,)))
def test_worker_joins_and_leaves(scenario, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            fleet.start("worker2")
            load.more(50)
            assert fleet.terminate("worker2") == {0}, fleet.tail("worker2")
            load.more(20)
    scenario.check()


@on_kafka
@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
def test_rebalance_while_inference_runs(scenario, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            load.more(20)
            fleet.hold_in_a_stage("worker")
            fleet.start("worker2")  # it is given partitions of the one that is held
            fleet.let_go()
            all_stored(fleet)
            assert fleet.terminate("worker2") == {0}, fleet.tail("worker2")
    scenario.check()


@on_kafka
@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
def test_views_killed(scenario, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            for view in ("store", "terminal"):
                load.more(20)
                scenario.moment()
                fleet.kill(view)
                fleet.start(view)
    scenario.check()


@on_kafka
@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
def test_all_stopped_and_started(scenario, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            load.more(20)
            for name in ("worker", "store", "terminal"):
                assert fleet.terminate(name) == {0}, fleet.tail(name)
            fleet.settle()
    scenario.check()


@on_kafka
@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
def test_gateway_killed(scenario, rounds):
    """What it answered is there, once; what it did not answer may be."""
    fleet = scenario.fleet
    fleet.start("gateway")
    with scenario.posts() as posts:
        for _ in range(rounds):
            posts.more(20)
            scenario.moment()
            fleet.kill("gateway")
            scenario.moment()
            fleet.start("gateway")
        posts.more(20)
    all_stored(fleet)
    ids = {row["id"] for row in fleet.rows("select id from events")}
    posts.taken(ids)
    scenario.check()
    assert fleet.terminate("gateway") == {0}, fleet.tail("gateway")


@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
@pytest.mark.parametrize("way", ["stop", "kill"])
@with_a_broker
def test_broker_away(scenario, way, rounds):
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            load.more(20)
            scenario.moment()
            getattr(scenario.broker, way)()
            scenario.moment(2 * SESSION_S)
            scenario.broker.start()
            load.more(50)
            fleet.nobody_died()
    scenario.check()


@with_a_broker
@pytest.mark.parametrize("rounds", long_form(1, soak=(20,)))
def test_stopped_and_started_while_the_broker_is_away(scenario, rounds):
    """Who cannot finish says so after the deadline; who comes too early waits."""
    fleet = scenario.fleet
    with scenario.load() as load:
        for _ in range(rounds):
            load.more(20)
            scenario.broker.stop()
            assert fleet.terminate(*BASE) <= {0, DRAIN_LATE}
            for name in BASE:
                fleet.launch(name)
            scenario.moment(SESSION_S)
            scenario.broker.start()
            fleet.is_ready(*BASE)
            load.more(20)
    scenario.check()
