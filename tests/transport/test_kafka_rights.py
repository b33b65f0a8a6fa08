"""A broker that lets in and does not let do: what is refused is named, with the way out."""

import asyncio
from uuid import uuid4

import pytest
from kafka_security import allow

from streamapp.core.errors import Refuse
from streamapp.transport import Outgoing, Security, TopicSpec, open_admin, open_members
from streamapp.transport.clients import started

pytestmark = pytest.mark.timeout(300)
GUEST = Security("sasl_plaintext", "PLAIN", "guest", "guest-secret")
APP = """
import os
import faust
from streamapp import transport

login = faust.SASLCredentials(username="guest", password=os.environ["WORD"], mechanism="PLAIN")
app = faust.App(
    "NAME", broker="URL", broker_credentials=login, store="memory://", web_enabled=False,
    topic_disable_leader=True, topic_allow_declare=False,
)
transport.configure(app, coalesce={"NAME"})

@app.agent(transport.slice_topic(app, "NAME"))
async def agent(stream):
    async for event in stream.noack().events():
        event.ack()
"""


@pytest.fixture
async def topic(kafka):
    """A topic that the guest may not see yet."""
    name = f"rights-{uuid4().hex[:8]}"
    async with started(open_admin(kafka.url)) as admin:
        await admin.create(TopicSpec(name, 1, 1000))
    return name


@pytest.fixture
def app(kafka, topic, run, tmp_path):
    """Somebody's own app of the guest, which knows nothing of our settings."""
    text = APP.replace("NAME", topic).replace("URL", kafka.sasl_url)
    (tmp_path / "shop.py").write_text(text)

    def start(word="guest-secret"):
        return run("-m", "faust", "-A", "shop", "worker", "-l", "warn", WORD=word)

    return start


def refused(worker):
    """The two lines that it ended with."""
    assert worker.ended() == 2, worker.text()
    text = worker.text()
    assert "Traceback" not in text, text
    assert "secret" not in text
    return text.splitlines()[-2:]


async def test_an_app_with_a_wrong_password_is_told_so(app, kafka):
    error, fix = refused(app("wr0ng-secret"))
    assert error.startswith(f"error: {kafka.sasl_url} does not let us in: ")
    assert fix == "fix: check the app's broker_credentials"


async def test_an_app_that_may_not_read_its_topic_does_not_wait_for_ever(app, kafka, topic):
    await allow(kafka.bootstrap, "guest", group=[(topic, "read")])
    error, fix = refused(app())
    assert error.startswith(f"error: {kafka.sasl_url} does not allow it: ")
    assert topic in error
    assert "Read" in fix


async def test_nor_one_that_may_not_be_of_its_group(app, kafka, topic):
    await allow(kafka.bootstrap, "guest", topic=[(topic, "read")])
    error, fix = refused(app())
    assert f"reading as group {topic!r}" in error
    assert fix == "fix: allow us Read on the consumer group"


async def test_nor_one_that_may_see_its_topic_and_not_read_it(app, kafka, topic):
    await allow(kafka.bootstrap, "guest", topic=[(topic, "describe")], group=[(topic, "read")])
    error, fix = refused(app())
    assert topic in error
    assert "Read" in fix


async def test_a_topic_that_we_may_not_make_is_named_with_the_right(kafka, topic):
    async with started(open_admin(kafka.sasl_url, GUEST)) as admin:
        with pytest.raises(Refuse, match=f"{topic}-new") as refused:
            await admin.create(TopicSpec(f"{topic}-new", 1, 1000))
    assert refused.value.code == "log.forbidden"
    assert "Create" in refused.value.fix


async def test_records_go_only_by_the_right_to_delete(kafka, topic, opened):
    await allow(kafka.bootstrap, "guest", topic=[(topic, "read", "write", "describe_configs")])
    admin, producer, reader = await opened(kafka.sasl_url, GUEST)
    await producer.send(topic, [Outgoing(b"v")] * 3)
    with pytest.raises(Refuse, match=topic) as refused:
        await admin.delete_records(topic, {0: 2})
    assert refused.value.code == "log.forbidden"
    assert "Delete" in refused.value.fix
    assert await reader.bounds(topic, 0) == (0, 3)
    await allow(kafka.bootstrap, "guest", topic=[(topic, "delete")])
    await admin.delete_records(topic, {0: 2})
    assert await reader.bounds(topic, 0) == (2, 3)


async def test_a_topic_that_we_may_read_and_not_write_takes_nothing(kafka, topic, opened):
    await allow(kafka.bootstrap, "guest", topic=[(topic, "read", "describe_configs")])
    _, producer, reader = await opened(kafka.sasl_url, GUEST)
    with pytest.raises(Refuse, match=topic) as refused:
        await producer.send(topic, [Outgoing(b"v")])
    assert refused.value.code == "log.forbidden"
    assert "Write" in refused.value.fix
    assert await reader.bounds(topic, 0) == (0, 0)


async def until_told(member):
    async with asyncio.timeout(30):
        while True:
            assert await member.held(0.1) is None


async def test_a_member_that_may_not_be_of_the_group_hears_of_it(kafka, topic):
    async def on_revoke(_held):
        raise AssertionError("it never held anything")

    await allow(kafka.bootstrap, "guest", topic=[(topic, "read", "describe_configs")])
    async with (
        started(open_members(kafka.sasl_url, GUEST)) as members,
        started(members.member(topic, on_revoke)) as member,
    ):
        await member.subscribe([topic])
        with pytest.raises(Refuse) as refused:
            await until_told(member)
    assert refused.value.code == "log.forbidden"
    assert "group" in refused.value.fix
