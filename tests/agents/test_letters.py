"""What lies on a topic of dead letters, where the log does not say all."""

import pytest

from streamapp.agents.letters import Letters
from streamapp.core.errors import Refuse, Retry
from streamapp.testing.log import MemoryLog
from streamapp.transport.clients import Outgoing, TopicSpec

DEAD = TopicSpec("events.dead", 1, 1 << 20)


async def test_a_log_that_says_less_than_it_had_is_asked_again():
    """As one of Kafka's may whose leader changed: nothing is erased for what was not read."""
    log = MemoryLog()
    log.create(DEAD)
    log.append(DEAD.name, [Outgoing(b"not one of ours") for _ in range(5)])
    reader = log.reader()
    await reader.start()
    whole = reader.bounds

    async def more(topic, partition):
        begin, end = await whole(topic, partition)
        return begin, end + 1

    letters = Letters(reader, DEAD.name, {DEAD.name: DEAD})
    assert len([one async for one in letters.newest(await letters.bounds())]) == 5
    reader.bounds = more
    with pytest.raises(Retry, match="has nothing from 5 on, and went to 6"):
        async for _ in letters.newest(await letters.bounds()):
            pass


def test_topics_of_an_own_app_s_dead_letters_are_named():
    specs = {name: TopicSpec(name, 1, 1 << 20) for name in ("shop", "shop.dead", "shop.enriched")}
    with pytest.raises(Refuse) as caught:
        Letters(MemoryLog().reader(), DEAD.name, specs)
    assert caught.value.fix.startswith("name another with --dead-topic (shop.dead), or create it")
    with pytest.raises(Refuse) as caught:
        Letters(MemoryLog().reader(), DEAD.name, {})
    assert caught.value.fix.startswith("name another with --dead-topic, or create it")
