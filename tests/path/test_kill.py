"""kill -9 of every process at random moments: nothing acknowledged is lost, nothing is there twice.

A careful sender repeats an event with the same id until it is answered.  Afterwards the store, the ring and every
enrichment equal those of a machine that nobody killed.
"""

import random
import threading

import numpy as np
import pytest

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

TEXTS = [
    "Quero cancelar meu plano",
    "Where is my order? It should have come on Monday.",
    "Die Rechnung ist falsch, bitte prüfen Sie das.",
    "Merci, tout fonctionne très bien maintenant!",
    "No puedo entrar en mi cuenta",
    "I love the new version, great work",
]
COLUMNS = (
    "id, text, conversation, language, intent, intent_confidence, sentiment, delta_time, velocity, "
    "interrupt, spin, fill_rate, embedding"
)
MODELLED = ("embedding", "spin", "intent_confidence")


def events(count, seed):
    """A fixed stream: 7 conversations, event times that move on and sometimes run backwards."""
    chance = random.Random(seed)
    at_ms = 1_760_000_000_000
    for number in range(count):
        at_ms += chance.choice([15, 400, 3_000, 70_000, -2_000])
        yield {
            "id": f"e{number}",
            "message": f"{chance.choice(TEXTS)} ({number})",
            "type": chance.choice(["UserMessage", "AgentMessage"]),
            "conversation_id": f"c{chance.randrange(7)}",
            "actor": chance.choice(["human", "agent"]),
            "time": at_ms,
            "duration_ms": chance.choice([0, 250, 5_000]),
            chance.choice(["channel", "plan", "city"]): number,
        }


def send_all(machine, stream, failures):
    try:
        for event in stream:
            machine.post_until_taken(event)
    except BaseException as error:  # noqa: BLE001  # shown by the test
        failures.append(error)


def enrichments(machine):
    return machine.rows(f"select {COLUMNS} from events order by id")


def assert_equal(ours, theirs):
    """Everything is equal; what a model computed, to float32's rounding in another batch shape."""
    for name in MODELLED:
        np.testing.assert_allclose(ours.pop(name), theirs.pop(name), atol=2e-4)
    np.testing.assert_equal(ours, theirs)


def kill_while_sending(machine, rounds, count, seed):
    chance = random.Random(seed)
    failures = []
    sender = threading.Thread(target=send_all, args=(machine, events(count, seed), failures))
    sender.start()
    pause = threading.Event()
    for _ in range(rounds):
        for victims in (*((name,) for name in machine.PROCESSES), machine.PROCESSES):
            machine.wait_for(lambda: len(machine.pids()) == 4, "all to run again")
            pause.wait(chance.uniform(0.0, 2.0))  # a random moment, not a condition
            machine.kill(*victims)
    sender.join(600)
    assert not failures, failures
    assert not sender.is_alive()


@pytest.mark.parametrize(
    ("rounds", "count"),
    [
        pytest.param(1, 300, id="short"),
        pytest.param(20, 6000, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
    ],
)
def test_killed_machine_equals_one_that_nobody_killed(machines, rounds, count):
    seed = 20_261_122
    killed = machines("killed", ring_frames=8192).start()
    kill_while_sending(killed, rounds, count, seed)
    killed.wait_rows(count)
    killed.wait_for(lambda: len(killed.frames()[0]) >= count, "every event to be a frame")
    calm = machines("calm").start()
    failures = []
    send_all(calm, events(count, seed), failures)
    assert not failures
    calm.wait_rows(count)

    once = killed.rows("select count(*) as n, count(distinct id) as ids from events")
    assert once == [{"n": count, "ids": count}]
    for ours, theirs in zip(enrichments(killed), enrichments(calm), strict=True):
        assert_equal(ours, theirs)
    addresses, lost = killed.frames()
    assert len(addresses) == len(set(addresses)) == count
    assert lost == 0
    stored = killed.rows("select source_partition as p, source_offset as o from events")
    assert sorted(addresses) == sorted((row["p"], row["o"]) for row in stored)
    assert killed.rows("select count(*) as n from dead") == [{"n": 0}]
    assert killed.stop() == 0
    assert calm.stop() == 0
