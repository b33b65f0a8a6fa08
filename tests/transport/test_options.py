"""What an app configures and what an agent joins stand together, whichever comes first."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.transport import configure, is_configured, join, options_of, record_by_record


class App:
    """Any object that can be referred to weakly."""


def answers(offset, asked):
    async def start_positions(tps):
        asked.append(set(tps))
        return dict.fromkeys(tps, offset)

    return start_positions


@pytest.mark.parametrize("order", ["configure first", "join first", "configured twice"])
async def test_both_count(order):
    app, own, joined = App(), [], []
    if order != "join first":
        configure(app, coalesce={"mine"}, start_positions=answers(1, own), batch_events_max=7)
    join(app, "orders", answers(2, joined))
    if order != "configure first":
        configure(app, coalesce={"mine"}, start_positions=answers(1, own), batch_events_max=7)
    options = options_of(app)
    assert options.coalesce == {"mine", "orders"}
    assert options.batch_events_max == 7
    positions = await options.start_positions({("mine", 0), ("orders", 0), ("orders", 1)})
    assert positions == {("mine", 0): 1, ("orders", 0): 2, ("orders", 1): 2}
    assert own == [{("mine", 0)}]
    assert joined == [{("orders", 0), ("orders", 1)}]


async def test_a_topic_nobody_knows_starts_where_the_log_says():
    app, joined = App(), []
    join(app, "orders", answers(2, joined))
    assert not is_configured(app)
    assert await options_of(app).start_positions({("words", 0)}) == {}
    assert joined == []


def test_a_topic_is_joined_once():
    app = App()
    join(app, "orders", answers(0, []))
    with pytest.raises(Refuse, match="two agents keep the position of topic 'orders'"):
        join(app, "orders", answers(0, []))


async def test_record_by_record_keeps_the_position():
    app, joined = App(), []
    join(app, "orders", answers(2, joined))
    join(app, "reviews", answers(3, joined))
    record_by_record(app, "orders")
    assert options_of(app).coalesce == {"reviews"}
    assert await options_of(app).start_positions({("orders", 0)}) == {("orders", 0): 2}


def test_an_app_that_never_asked():
    assert options_of(App()).coalesce == frozenset()
    assert options_of(App()).start_positions is None
