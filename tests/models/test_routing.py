"""The router over batches: fallbacks, cool-downs, guards, shadows and ensembles."""

import msgspec
import pytest
from routing_bench import Bench, by, column

from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.route import Event
from streamapp.models.routing.standing import EPOCH_S_MIN


def test_the_best_score_answers_in_one_call():
    bench = Bench()
    found = bench.run(3)
    assert by(found) == ["a"] * 3
    assert bench.models.calls == [("a", [0, 1, 2])]
    row = found.routes.to_pylist()[0]
    assert row["model"] == "classify/a@1"
    assert (row["route"], row["why"], row["epoch"]) == ("r", "score", 1)
    assert row["accuracy"] == pytest.approx(0.9)
    assert row["score"] == pytest.approx(0.4 * 0.9 + 0.2 * 0.5)
    assert bench.told == [("r", "a", "score", 3)]
    assert bench.run(0).answers == []


def test_rows_are_grouped_by_the_model_that_they_get():
    bench = Bench(facts={"a": {"accuracy": 0.9, "languages": ["en"]}, "b": {"accuracy": 0.8}})
    events = [Event("k", 1, language) for language in ("en", "de", "en", "pt")]
    assert by(bench.run_events(events)) == ["a", "b", "a", "b"]
    assert bench.models.calls == [("a", [0, 2]), ("b", [1, 3])]


def test_nobody_may_answer_and_the_row_says_so():
    bench = Bench(facts={name: {"languages": ["en"]} for name in "abc"})
    found = bench.run(1, language="pt")
    assert by(found) == [None]
    assert column(found, "why") == ["none"]
    assert column(found, "model") == [None]


def test_a_failure_falls_back_and_cools_down():
    bench = Bench(failures_max=2, cool_down_s=30)
    bench.models.errors["a"] = RuntimeError("broken")
    found = bench.run(2)
    assert by(found) == ["b", "b"]
    assert column(found, "why") == ["fallback"] * 2
    assert column(found, "accuracy") == pytest.approx([0.8] * 2)  # the terms of who answered
    bench.run(2)
    bench.models.calls.clear()
    assert by(bench.run(2)) == ["b", "b"]
    assert [name for name, _ in bench.models.calls] == ["b"]  # a is left alone
    bench.clock.advance(31)
    del bench.models.errors["a"]
    bench.run(1)  # until the epoch says that it is up
    assert by(bench.run(1)) == ["a"]


def test_one_trial_after_the_cool_down_and_it_is_left_alone_again():
    bench = Bench(failures_max=2, cool_down_s=30)
    bench.models.errors["a"] = RuntimeError("broken")
    for _ in range(2):
        bench.run(1)
    bench.clock.advance(31)
    for _ in range(5):
        bench.run(1)
    assert [name for name, _ in bench.models.calls].count("a") == 3


def test_when_all_have_failed_the_events_wait():
    bench = Bench(models=["a", "b"], facts={}, failures_max=1)
    bench.models.errors = {"a": Retry("x", "away"), "b": RuntimeError("broken")}
    with pytest.raises(Retry, match="a: away; b: RuntimeError: broken"):
        bench.run(2)
    bench.models.calls.clear()
    with pytest.raises(Retry):  # both cool down: nobody is asked
        bench.run(2)
    assert bench.models.calls == []
    bench.models.errors.clear()
    bench.clock.advance(31)
    assert by(bench.run(2)) == ["a", "a"]


def test_what_no_model_can_do_is_rejected_or_left_null():
    bench = Bench(models=["a"], facts={})
    bench.models.errors["a"] = RuntimeError("broken")
    with pytest.raises(Reject, match="nobody answers"):
        bench.run(1)
    bench = Bench(models=["a"], facts={}, exhausted="null")
    bench.models.errors["a"] = RuntimeError("broken")
    found = bench.run(1)
    assert by(found) == [None]
    assert column(found, "why") == ["exhausted"]


def test_a_reject_is_about_the_row_and_not_about_the_model():
    bench = Bench()
    bench.models.errors["a"] = Reject("x", "bad row")
    with pytest.raises(Reject, match="bad row"):
        bench.run(1)
    assert [name for name, _ in bench.models.calls] == ["a"]


def test_a_batch_that_is_not_made_leaves_no_epoch():
    bench = Bench(models=["a"], facts={})
    bench.models.errors["a"] = Retry("x", "away")
    with pytest.raises(Retry):
        bench.run(1)
    assert len(bench.epochs()) == 0


# What was measured


def slow(bench, name, seconds, batches=20):
    bench.models.seconds[name] = seconds
    for _ in range(batches):
        bench.run(1)
    bench.clock.advance(EPOCH_S_MIN)


def test_a_slow_model_loses_by_its_latency():
    bench = Bench(weights={"alpha": 0, "beta": 0.1, "gamma": 0, "delta": 1}, deadline_ms=50)
    assert by(bench.run(1)) == ["a"]
    slow(bench, "a", 0.2)
    bench.run(1)  # measured now, rules the next
    found = bench.run(1)
    assert by(found) == ["b"]
    assert column(found, "epoch")[0] > 1


def test_a_measured_time_changes_an_epoch_seldom():
    bench = Bench()
    slow(bench, "a", 0.010)
    bench.run(1)
    number = bench.epochs().newest.number
    for seconds in (0.0101, 0.0099, 0.0103):
        slow(bench, "a", seconds)
    assert bench.epochs().newest.number == number
    slow(bench, "a", 0.05, batches=300)
    bench.run(1)
    assert bench.epochs().newest.number == number + 1


def test_the_guard_takes_out_who_fails_and_keeps_the_last():
    guard = {"error_rate_max": 0.2, "calls_min": 5}
    bench = Bench(canary={"model": "c", "percent": 100}, guard=guard, failures_max=1000)
    assert by(bench.run(1)) == ["c"]
    bench.models.errors["c"] = RuntimeError("broken")
    for _ in range(5):
        assert by(bench.run(1)) in (["a"], ["b"])
    found = bench.run(1)
    assert (column(found, "why"), column(found, "arm")) == (["score"], ["c"])  # rolled back
    bench.models.errors.clear()
    for _ in range(9):
        assert by(bench.run(1)) == ["a"]  # it stays out
    bench.models.errors = {"a": RuntimeError("broken")}
    for _ in range(9):
        assert by(bench.run(1)) == ["b"]
    out = {each.name: bool(each.out) for each in bench.epochs().newest.candidates}
    assert out == {"a": True, "b": False, "c": True}
    bench.models.errors = {"b": RuntimeError("broken")}
    for _ in range(30):
        with pytest.raises(Reject):
            bench.run(1)
    bench.models.errors.clear()
    assert by(bench.run(1)) == ["b"]


def test_the_guard_takes_out_who_is_late():
    bench = Bench(
        split={"b": 100}, guard={"p95_ms_max": 100, "calls_min": 10}, models=["a", "b"], facts={}
    )
    slow(bench, "b", 0.2)
    bench.run(1)
    assert by(bench.run(1)) == ["a"]
    [_, late] = bench.epochs().newest.candidates
    assert late.out.startswith("taken out: p95 2")


def test_who_was_taken_out_is_out_after_a_restart_until_it_is_another_version():
    guard = {"error_rate_max": 0.2, "calls_min": 5}
    bench = Bench(canary={"model": "c", "percent": 100}, guard=guard, failures_max=1000)
    bench.models.errors["c"] = RuntimeError("broken")
    for _ in range(7):
        bench.run(1)
    bench.models.errors.clear()
    bench.router = bench.made()
    assert by(bench.run(1)) == ["a"]
    bench.models.put("c", 2)
    assert by(bench.run(1)) == ["c"]
    assert bench.router.models[2].version == 2


# Shadows and ensembles


def test_the_shadow_says_and_does_not_matter():
    bench = Bench(
        models=["a"], shadow="b", facts={"b": {"chars_max": 3}}, shadow_wait_ms_max=60_000
    )
    found = bench.run(2)
    assert by(found) == ["a", "a"]
    assert column(found, "shadow") == ["b", "b"]
    assert column(found, "shadow_model") == ["classify/b@1"] * 2
    assert column(found, "shadow_confidence") == pytest.approx([0.9] * 2)
    for error in (RuntimeError("x"), Reject("x", "x"), Retry("x", "x")):
        bench.models.errors["b"] = error
        found = bench.run(1)
        assert by(found) == ["a"]
        assert column(found, "shadow") == [None]
    assert column(bench.run(1, chars=4), "shadow_model") == [None]


def test_an_ensemble_asks_all_and_answers_once():
    bench = Bench(ensemble="vote")
    found = bench.run(2)
    assert [name for name, _ in bench.models.calls] == ["a", "b", "c"]
    assert column(found, "model") == ["classify/a@1+classify/b@1+classify/c@1"] * 2
    assert column(found, "why") == ["ensemble"] * 2
    assert [each.confidence for each in found.answers] == pytest.approx([1 / 3] * 2)


def test_an_ensemble_does_without_who_fails_or_may_not():
    bench = Bench(ensemble="mean", facts={"b": {"languages": ["de"]}})
    bench.models.errors["c"] = RuntimeError("broken")
    found = bench.run(1)
    assert column(found, "model") == ["classify/a@1"]
    bench.models.errors["a"] = Retry("x", "away")
    with pytest.raises(Retry, match="nobody answers"):
        bench.run(1)


def test_an_unknown_model_is_refused_at_the_start():
    with pytest.raises(Refuse, match="no model is called 'd'"):
        Bench(models=["a", "d"], facts={})


def test_a_declaration_that_goes_wrong_while_it_runs_changes_nothing():
    bench = Bench(models=["a", "b"], facts={"a": {"accuracy": 0.9}})
    bench.run(1)
    given = bench.router._standing._source
    for wrong in (["a", "none"], ["a", "b"]):
        given._spec = msgspec.structs.replace(bench.spec, models=wrong, salt=str(wrong))
        bench.clock.advance(EPOCH_S_MIN)
        found = bench.run(1)
        assert by(found) == ["a"]
        assert (bench.router.spec.models == ["a", "b"]) == (column(found, "epoch") != [0])
    assert bench.router.spec.salt == str(["a", "b"])
    assert bench.epochs().newest.number == 2
    bench.models.by_name.pop("b")
    assert by(bench.run(1)) == ["a"]  # it goes on with what it has
