"""Where a lane begins: what its group committed, what was planned, what the topic still has."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from exporting import COLUMNS

from streamapp.agents.exports.body import Place
from streamapp.agents.exports.condition import Condition
from streamapp.agents.exports.lane import Lane
from streamapp.agents.exports.plans import Plan


class Log:
    """What a lane asks at its begin."""

    def __init__(self, bounds, committed, plan):
        self._bounds, self._committed, self._plan = bounds, committed, plan
        self.commits = []

    async def bounds(self, _topic, _partition):
        return self._bounds

    async def committed(self, _partition):
        return self._committed

    async def find(self, _name, _partition):
        return self._plan

    async def commit(self, _partition, offset):
        self.commits.append(offset)


def plan_of(*places):
    return Plan.of("default", 0, [Place(*place) for place in places])


def begun(bounds, committed, plan=None, begin="now"):
    log = Log(bounds, committed, plan)
    target = SimpleNamespace(now=SimpleNamespace(name="default", begin=begin), wake=lambda: None)
    work = SimpleNamespace(
        courier=SimpleNamespace(target=target),
        condition=lambda: Condition("default", "true", COLUMNS),
        reader=log, plans=log, committed=log.committed, commit=log.commit,
    )  # fmt: skip
    lane = Lane(work, 0)
    asyncio.run(lane._begin())
    return lane, log


def test_a_plan_is_rows_by_record():
    plan = plan_of((3, 1), (3, 4), (5, 0))
    assert plan.rows == [(3, [1, 4]), (5, [0])]
    assert (plan.first, plan.after) == (Place(3, 1), Place(5, 1))


@pytest.mark.parametrize(
    ("committed", "places", "at", "unfinished"),
    [
        (7, [], (7, 0), False),
        # The plan was written, and nobody knows whether it was posted.
        (7, [(7, 0), (7, 1)], (7, 2), True),
        (7, [(8, 3), (9, 0)], (9, 1), True),
        # Half of record 7 was done when the plan for the other half was written.
        (7, [(7, 4), (8, 0)], (8, 1), True),
        # The commit came after it, so it was posted; it ended in the middle of record 7.
        (7, [(6, 2), (7, 4)], (7, 5), False),
        (7, [(3, 0), (4, 1)], (7, 0), False),
    ],
)
def test_it_goes_on_behind_what_is_known_to_be_done(committed, places, at, unfinished):
    plan = plan_of(*places) if places else None
    lane, log = begun((0, 20), committed, plan)
    assert (lane._from, lane._at) == (Place(*at), at[0])
    assert lane._plan == (plan if unfinished else None)
    assert log.commits == []


@pytest.mark.parametrize(("begin", "at"), [("now", 20), ("beginning", 5)])
def test_a_new_one_begins_where_it_is_told_and_says_so_at_once(begin, at):
    lane, log = begun((5, 20), None, begin=begin)
    assert (lane._at, log.commits) == (at, [at])


def test_a_new_one_that_was_killed_before_its_first_commit_goes_on_from_its_plan():
    lane, _ = begun((0, 20), None, plan_of((4, 0)))
    assert (lane._from, lane._plan) == (Place(4, 1), plan_of((4, 0)))


def test_what_retention_took_is_said(caplog):
    with caplog.at_level(logging.ERROR):
        lane, _ = begun((10, 20), 7)
    assert lane._at == 10
    assert "retention took records 7 to 9" in caplog.text


@pytest.mark.parametrize("plan", [None, plan_of((500, 0))])
def test_a_topic_that_was_made_anew_is_read_from_its_beginning(plan):
    lane, log = begun((0, 20), 400, plan)
    assert (lane._at, lane._plan, log.commits) == (0, None, [0])
