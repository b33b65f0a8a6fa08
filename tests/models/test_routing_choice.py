"""Scores, gates, arms and epochs: everything about a choice that is pure."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.core.route import Event
from streamapp.models.routing.answers import Label, labels_of, mean, vote
from streamapp.models.routing.epoch import EPOCHS_MAX, Candidate, Epoch, Epochs
from streamapp.models.routing.score import COOLING, choose, terms
from streamapp.models.routing.spec import RouteSpec, check_route
from streamapp.models.routing.sticky import SRM_P_MIN, arm_of, mismatch, place_of


def candidate(name, **said):
    return Candidate(name=name, model=f"classify/{name}@1", sha256="0" * 12, **said)


def epoch(*candidates, weights=(0.25, 0.25, 0.25, 0.25), **said):
    plain = {"number": 1, "first": 0, "deadline_ms": 50.0, "salt": "s"}
    return Epoch(candidates=list(candidates), weights=weights, **plain | said)


FAST = candidate("fast", texts_per_s=1000.0, accuracy=0.8, p95_ms=5.0)
GOOD = candidate("good", texts_per_s=100.0, accuracy=0.95, p95_ms=25.0, languages=["en"])
HELLO = Event("c1", 5, "en")


def test_the_score_is_the_formula():
    fast, good = terms(epoch(FAST, GOOD, weights=(1, 2, 3, 4)), HELLO)
    assert fast[2:6] == (1.0, 0.8, 0.5, 1 - 5 / 50)
    assert good[2:6] == (0.1, 0.95, 1.0, 1 - 25 / 50)
    assert fast.score == pytest.approx(1 * 1.0 + 2 * 0.8 + 3 * 0.5 + 4 * 0.9)
    assert good.score == pytest.approx(1 * 0.1 + 2 * 0.95 + 3 * 1.0 + 4 * 0.5)


@pytest.mark.parametrize(
    ("weights", "chosen"), [((1, 0, 0, 0), "fast"), ((0, 1, 0, 0), "good"), ((0, 0, 1, 0), "good")]
)
def test_the_weights_decide(weights, chosen):
    assert choose(epoch(FAST, GOOD, weights=weights), HELLO).order[0] == chosen


def test_later_than_the_deadline_costs_but_not_without_end():
    late, later = (candidate("x", p95_ms=ms) for ms in (75.0, 1e9))
    assert [each.latency for each in terms(epoch(late, later), HELLO)] == [-0.5, -1.0]


def test_what_was_not_measured_counts_nothing():
    [one] = terms(epoch(candidate("x")), HELLO)
    assert one[2:] == (0.0, 0.0, 0.5, 0.0, 0.125)


GATES = {
    "language de": (candidate("g", accuracy=1.0, languages=["en"]), Event("c", 5, "de")),
    "text longer than 98": (candidate("g", accuracy=1.0, chars_max=98), Event("c", 99, "en")),
    COOLING: (candidate("g", accuracy=1.0, up=False), HELLO),
    "taken out": (candidate("g", accuracy=1.0, out="taken out: x"), HELLO),
}


@pytest.mark.parametrize("why", GATES)
def test_the_gate_is_closed_at_any_score(why):
    gated, event = GATES[why]
    other = candidate("other", accuracy=0.0)
    choice = choose(epoch(gated, other, weights=(0, 1, 0, 0)), event)
    assert choice.order[0] == "other"
    assert choice.terms[0].gate.startswith(why)
    assert choice.terms[0].compatibility == 0


def test_any_language_and_an_unknown_one_pass():
    speaks = candidate("x", languages=["en"])
    assert choose(epoch(speaks), Event("c", 1, None)).order == ("x",)
    assert choose(epoch(candidate("x", languages=["*"])), Event("c", 1, "pt")).order == ("x",)
    assert choose(epoch(speaks), Event("c", 1, "pt"))[:2] == ((), "none")


def test_who_cools_down_is_asked_when_nobody_else_is_left():
    down = candidate("down", accuracy=1.0, up=False)
    assert choose(epoch(down, FAST), HELLO).order == ("fast", "down")
    assert choose(epoch(down), HELLO).order == ("down",)


def test_a_text_too_long_for_all_goes_to_the_one_that_sees_most():
    small, large = candidate("small", chars_max=10), candidate("large", chars_max=20)
    choice = choose(epoch(small, large), Event("c", 21, "en"))
    assert (choice.order, choice.why) == (("large",), "truncated")
    assert choose(epoch(small, large), Event("c", 11, "en")).order == ("large",)


def test_equal_scores_go_as_declared():
    one, other = candidate("one"), candidate("other")
    assert choose(epoch(one, other), HELLO).order == ("one", "other")
    assert choose(epoch(other, one), HELLO).order == ("other", "one")


# Experiments


KEYS = [f"conversation-{number}" for number in range(4000)]


def arms(shares, keys=KEYS, salt="s"):
    return [arm_of(place_of(key, salt), shares) for key in keys]


def test_a_split_gets_its_share_and_every_conversation_its_arm():
    found = arms({"a": 30, "b": 20})
    assert found == arms({"a": 30, "b": 20})
    for arm, share in {"a": 0.3, "b": 0.2, "": 0.5}.items():
        assert found.count(arm) / len(KEYS) == pytest.approx(share, abs=0.03)


def test_a_canary_that_grows_keeps_whom_it_has():
    few, more = arms({"canary": 5}), arms({"canary": 25})
    assert {key for key, arm in zip(KEYS, few, strict=True) if arm} < {
        key for key, arm in zip(KEYS, more, strict=True) if arm
    }


def test_another_salt_is_another_experiment():
    one, other = arms({"a": 50}), arms({"a": 50}, salt="t")
    both = sum(a == b == "a" for a, b in zip(one, other, strict=True))
    assert both / len(KEYS) == pytest.approx(0.25, abs=0.03)  # independent


def test_the_arm_answers_whatever_the_score_and_yields_to_the_gate():
    split = epoch(FAST, GOOD, shares=[("good", 100.0)], weights=(1, 0, 0, 0))
    assert choose(split, HELLO)[:2] == (("good", "fast"), "split")
    german = choose(split, HELLO._replace(language="de"))
    assert (german.order, german.why, german.arm) == (("fast",), "score", "good")


def test_the_shadow_is_sticky_and_no_arm_of_its_own():
    shadowed = epoch(FAST, shadow=GOOD, shadow_percent=20.0)
    found = [choose(shadowed, Event(key, 5, "en")) for key in KEYS]
    assert sum(each.shadow for each in found) / len(KEYS) == pytest.approx(0.2, abs=0.03)
    assert all(each.order == ("fast",) for each in found)
    assert not choose(shadowed, Event(KEYS[0], 5, "de")).shadow  # it does not speak it


def test_srm_agrees_with_the_tables():
    """Critical values of chi-square: https://www.itl.nist.gov/div898/handbook/eda/section3/eda3674.htm"""
    for arms_, critical in ((2, 3.841), (3, 5.991), (4, 7.815), (6, 11.070)):
        names = [str(number) for number in range(arms_)]
        total = 1_000_000
        shift = math.sqrt(critical * (total / arms_) / 2)
        counts = dict.fromkeys(names, total / arms_)
        counts[names[0]] += shift
        counts[names[1]] -= shift
        assert mismatch(counts, dict.fromkeys(names, 1)) == pytest.approx(0.05, rel=1e-3)


def test_srm_sees_a_lost_tenth_and_not_chance():
    found = arms({"a": 50, "b": 50})
    counts = {arm: found.count(arm) for arm in "ab"}
    assert mismatch(counts, {"a": 50, "b": 50}) > SRM_P_MIN
    lost = {**counts, "a": counts["a"] * 8 // 10}
    assert mismatch(lost, {"a": 50, "b": 50}) < SRM_P_MIN
    assert mismatch({}, {"a": 50, "b": 50}) == 1.0


# Epochs


def test_an_epoch_goes_through_msgpack_and_json():
    known = epoch(FAST, GOOD, shadow=candidate("s"), shares=[("fast", 5.0)])
    plain = Epochs([known]).plain()
    assert Epochs.of(msgspec.msgpack.decode(msgspec.msgpack.encode(plain))).newest == known
    assert Epochs.of(msgspec.json.decode(msgspec.json.encode(plain))).newest == known


def at(first, number):
    return epoch(FAST, number=number, first=first)


def test_the_epoch_that_began_last_rules():
    epochs = Epochs([at(0, 1), at(10, 2), at(20, 3)])
    assert [epochs.at(offset).number for offset in (0, 9, 10, 19, 20, 99)] == [1, 1, 2, 2, 3, 3]
    assert not Epochs([at(5, 1)]).has(4)
    assert [epoch.number for epoch in epochs.with_(at(10, 4))._epochs] == [1, 4]


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 60))
def test_an_epoch_more_changes_nothing_before_it(firsts, first):
    epochs = Epochs([at(0, 1)])
    for number, begins in enumerate(sorted(firsts), 2):
        epochs = epochs.with_(at(begins, number))
    more = epochs.with_(at(first, 99))
    for offset in range(61):
        assert more.at(offset) == (epochs.at(offset) if offset < first else at(first, 99))


def test_old_epochs_are_forgotten():
    epochs = Epochs([at(0, 1)])
    for number in range(2, 500):
        epochs = epochs.with_(at(number * 10, number))
    assert len(epochs) == EPOCHS_MAX
    assert not epochs.has(0)
    assert epochs.at(10_000).number == 499


def test_only_the_declaration_makes_another_one():
    plain = epoch(FAST, GOOD)
    measured = epoch(msgspec.structs.replace(FAST, p95_ms=9.0, up=False, out="x"), GOOD)
    assert plain.declared == measured.declared
    assert not plain.says_the_same_as(measured)
    for other in (
        epoch(GOOD, FAST),
        epoch(FAST, GOOD, weights=(1, 0, 0, 0)),
        epoch(FAST, GOOD, shares=[("fast", 1.0)]),
        epoch(FAST, msgspec.structs.replace(GOOD, model="classify/good@2")),
        epoch(FAST, GOOD, shadow=candidate("s")),
    ):
        assert other.declared != plain.declared


names = st.sampled_from(["fast", "good", "third"])
candidates = st.builds(
    candidate,
    names,
    texts_per_s=st.none() | st.floats(0, 1e4),
    accuracy=st.none() | st.floats(0, 1),
    p95_ms=st.none() | st.floats(0, 1e4),
    languages=st.lists(st.sampled_from(["en", "de", "*"]), max_size=2),
    chars_max=st.integers(0, 50),
    up=st.booleans(),
    out=st.sampled_from(["", "", "taken out"]),
)
events = st.builds(
    Event, st.text(max_size=8), st.integers(0, 60), st.none() | st.sampled_from(["en", "de", "pt"])
)


@given(
    st.lists(candidates, min_size=1, max_size=3, unique_by=lambda each: each.name),
    st.lists(st.tuples(names, st.floats(0, 33)), max_size=3, unique_by=lambda pair: pair[0]),
    events,
)
def test_a_choice_depends_on_epoch_and_event_alone(known, shares, event):
    """After the epoch went through the log it is the same choice; who is out is never in it."""
    declared = [(name, percent) for name, percent in shares if name in {c.name for c in known}]
    made = epoch(*known, shares=declared)
    [read] = Epochs.of(
        msgspec.msgpack.decode(msgspec.msgpack.encode(Epochs([made]).plain()))
    )._epochs
    choice = choose(made, event)
    assert choose(read, event) == choice
    assert len(set(choice.order)) == len(choice.order)
    by_name = {each.name: each for each in known}
    assert not any(by_name[name].out for name in choice.order)
    open_ = {each.name for each in choice.terms if not each.gate}
    assert set(choice.order[: len(open_)]) == open_ or choice.why == "truncated"


# Answers and declarations


def test_a_label_that_is_not_sure_is_unknown():
    import numpy as np

    shares = np.array([[0.7, 0.3], [0.52, 0.48], [np.nan, np.nan]], np.float32)
    sure, near, none = labels_of(shares, ("a", "b"), 0.6, 0.1)
    assert (sure.name, near.name, none) == ("a", "unknown", None)
    assert sure.confidence == pytest.approx(0.7)
    assert labels_of(shares, ("a", "b"), 0.0, 0.1)[1].name == "unknown"
    assert labels_of(shares, ("a", "b"), 0.0, 0.0)[1].name == "a"


def label(name, **shares):
    return Label(name, max(shares.values()), shares)


def test_vote_and_mean_may_differ():
    said = [label("a", a=0.51, b=0.49), label("a", a=0.51, b=0.49), label("b", a=0.01, b=0.99)]
    assert vote(said).name == "a"
    assert vote(said).confidence == pytest.approx(2 / 3)
    assert mean(said).name == "b"
    assert mean(said).confidence == pytest.approx((0.49 + 0.49 + 0.99) / 3)


def test_a_tie_of_votes_goes_to_the_surer_and_a_missing_label_is_nothing():
    assert vote([label("a", a=0.6), label("b", b=0.9)]).name == "b"
    assert mean([label("a", a=0.6), label("b", b=0.9)]).shares == {"a": 0.3, "b": 0.45}
    assert mean([label("unknown", a=0.4), label("unknown", a=0.4)]).name == "unknown"


WRONG = {
    "twice": {"models": ["a", "a"]},
    "none of its models": {"split": {"c": 5}},
    "says something": {"facts": {"c": {}}},
    "as the shadow": {"shadow": "a"},
    "both a split": {"split": {"a": 1}, "canary": {"model": "b", "percent": 1}},
    "splits 101": {"split": {"a": 51, "b": 50}},
    "a split; take": {"ensemble": "vote", "split": {"a": 1}},
    "of one model": {"ensemble": "vote", "models": ["a"]},
    "of spans": {"ensemble": "vote", "task": "entities"},
    "no weight": {"weights": dict.fromkeys(("alpha", "beta", "gamma", "delta"), 0)},
}


@pytest.mark.parametrize("why", WRONG)
def test_a_route_that_contradicts_itself_is_refused(why):
    spec = msgspec.convert({"task": "classify", "models": ["a", "b"], **WRONG[why]}, RouteSpec)
    with pytest.raises(Refuse, match=why) as caught:
        check_route("x", spec)
    assert "[route.x]" in caught.value.message
    assert caught.value.fix
