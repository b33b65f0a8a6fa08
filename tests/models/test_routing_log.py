"""Epochs in the log: from them alone every choice can be made again."""

import msgspec
import numpy as np
import pytest
from routing_bench import Bench, Partition, column

from streamapp.core.route import Event
from streamapp.models.routing.epoch import Epochs
from streamapp.models.routing.score import choose


def replayed(bench, partition, events):
    """The choices made again, from what was published and nothing else."""
    known, choices, offset = Epochs(), [], 0
    for changes, batch in zip(partition.published, events, strict=True):
        for entry in changes:  # of one key; a record keeps the last
            known = Epochs.of(msgspec.msgpack.decode(msgspec.msgpack.encode(entry.value)))
        choices += [choose(known.at(offset + at), event) for at, event in enumerate(batch)]
        offset += len(batch)
    return choices


@pytest.mark.parametrize("ahead", [0, 3, 50])
def test_every_choice_can_be_made_again_from_the_log(ahead):
    bench = Bench(split={"b": 40}, ahead_events=ahead, failures_max=1, cool_down_s=5)
    rng = np.random.default_rng(7)
    events, found = [], []
    for number in range(60):
        if number % 10 == 5:
            bench.models.errors = {"a": RuntimeError("broken")} if number % 20 == 5 else {}
        if number == 30:
            bench.models.put("b", 2)
        if number in (20, 40):
            bench.router = bench.made()  # a new owner
        bench.models.seconds["a"] = float(rng.choice([0.001, 0.02, 0.3]))
        bench.clock.advance(float(rng.choice([0.1, 11])))
        batch = [
            Event(f"k{rng.integers(50)}", int(rng.integers(9)), str(rng.choice(["en", "de"])))
            for _ in range(rng.integers(1, 6))
        ]
        events.append(batch)
        found += bench.run_events(batch).routes.to_pylist()
    again = replayed(bench, bench.partition, events)
    assert len({row["epoch"] for row in found}) > 8
    assert {row["why"] for row in found} == {"score", "split", "fallback"}
    for row, choice in zip(found, again, strict=True):
        assert row["arm"] == (choice.arm or None)
        answered = row["model"].partition("@")[0].removeprefix("classify/")
        assert answered in choice.order
        if row["why"] != "fallback":
            assert (answered, row["why"]) == (choice.order[0], choice.why)
        terms = next(each for each in choice.terms if each.name == answered)
        for name in ("score", "performance", "accuracy", "compatibility", "latency"):
            assert row[name] == np.float32(getattr(terms, name))


def test_what_was_measured_rules_only_when_the_log_has_it():
    """A worker that is killed before its last batches were published makes the same choices."""
    bench = Bench(ahead_events=6, failures_max=1, cool_down_s=1e6)
    bench.run(4)
    bench.models.errors["a"] = RuntimeError("broken")
    [before] = bench.epochs()._epochs
    bench.run(4)  # offsets 4 to 7; the epoch of its failure begins at 8 + 6
    assert [epoch.first for epoch in bench.epochs()._epochs] == [0, 14]
    assert column(bench.run(4), "epoch") == [1] * 4
    assert column(bench.run(4), "epoch") == [1, 1, 2, 2]
    assert before.candidates[0].up


def test_each_partition_remembers_its_own():
    bench = Bench()
    other = Partition()
    bench.models.errors["a"] = RuntimeError("broken")
    for _ in range(3):
        bench.run(1)
    assert not bench.epochs().newest.candidates[0].up
    assert len(bench.epochs(other)) == 0
    found = bench.run(1, other)
    assert column(found, "epoch") == [1]
    assert column(found, "why") == ["fallback"]  # chosen by what is declared; it is left alone
    assert column(bench.run(1, other), "epoch") == [2]
    assert not bench.epochs(other).newest.candidates[0].up


def test_a_worker_that_is_killed_leaves_the_same_choices():
    """Whatever it had measured: what it had not published is chosen by what the log has."""
    bench = Bench(split={"b": 40}, ahead_events=12, failures_max=1, cool_down_s=1e6)
    batches = [[Event(f"k{at}", 3, "en") for at in range(n, n + 4)] for n in range(0, 80, 4)]
    for batch in batches[:10]:
        bench.run_events(batch)
    bench.models.errors["a"] = RuntimeError("broken")
    published = 12
    for batch in batches[10:published]:
        bench.run_events(batch)
    bench.models.put("c", 2)  # a declaration that changes in what was not published
    lost = [bench.run_events(batch) for batch in batches[published : published + 3]]

    heir = Bench(split={"b": 40}, ahead_events=12, failures_max=1, cool_down_s=1e6)
    heir.models.put("c", 2)
    heir.models.errors["a"] = RuntimeError("broken")
    for changes in bench.partition.published[:published]:
        heir.partition.state.apply(changes)
    heir.partition.next = published * 4
    for batch, before in zip(batches[published : published + 3], lost, strict=True):
        again = heir.run_events(batch)
        assert again.routes == before.routes
        assert [each.name for each in again.answers] == [each.name for each in before.answers]
