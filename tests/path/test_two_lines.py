"""What a transport refuses inside somebody's own Faust app: two lines and an exit code."""

import socket

import pytest
from faust_apps import run  # noqa: F401

PROGRAM = """
import os, faust, streamapp
from streamapp import transport

app = faust.App(
    "shop", broker=os.environ["BROKER_URL"], topic_partitions=2, store="memory://", {settings}
)
{body}
@app.agent(app.topic("orders"))
async def read(stream):
    async for order in stream:
        pass
"""
EXACTLY_ONCE = 'processing_guarantee="exactly_once"'
NOT_DECLARED = "topic_allow_declare=False, topic_disable_leader=True"


@pytest.fixture
def ends(run, tmp_path):  # noqa: F811
    """Run the app's worker to its end; what it printed last and its exit code."""

    async def to_the_end(broker, body="", settings=""):
        (tmp_path / "shop.py").write_text(PROGRAM.format(body=body, settings=settings))
        arguments = ("-m", "faust", "-A", "shop", "worker", "--without-web", "-l", "warn")
        worker = run(*arguments, BROKER_URL=broker)
        code = await worker.ended()
        text = worker.text()
        assert "Traceback" not in text, text
        # Faust's spinner hides the cursor in front of them.
        return code, text.replace("\x1b[?25l", "").splitlines()[-2:]

    return to_the_end


@pytest.mark.parametrize(
    ("broker", "error"),
    [
        ("local://log", "not the URL of a local log: 'local://log'"),
        ("local:///proc/log", "cannot use /proc/log as a log"),
        ("kafka+batch://two words", "not the URL of a Kafka cluster: 'kafka+batch://two words'"),
        ("kafka+batch://ann:secret@host", "names a user"),
    ],
)
async def test_a_wrong_url(ends, broker, error):
    code, (first, second) = await ends(broker)
    assert code == 2
    assert first.startswith("error: ")
    assert error in first
    assert "secret" not in first
    assert second.startswith("fix: ")


@pytest.mark.parametrize(
    ("body", "settings", "error"),
    [
        ("", EXACTLY_ONCE, "a local log has no Kafka transactions"),
        ('transport.configure(app, coalesce={"orders"})', "", "takes single records of 'orders'"),
        ("transport.configure(app, batch_events_max=0)", "", "batch_events_max is 0"),
        ("", NOT_DECLARED, "no topic 'orders'"),
        ('app.Table("names")', NOT_DECLARED, "no topic"),
        (
            'streamapp.install(app, source="o", stages=["nobody"])',
            "",
            "no stage is called 'nobody'",
        ),
    ],
)
async def test_what_the_embedded_log_refuses(ends, tmp_path, body, settings, error):
    code, (first, second) = await ends(f"local://{tmp_path}/log", body, settings)
    assert code == 2
    assert first.startswith("error: ")
    assert error in first
    assert second.startswith("fix: ")


async def test_a_damaged_file_of_the_groups(ends, tmp_path):
    groups = tmp_path / "log" / "groups" / "groups.db"
    groups.parent.mkdir(parents=True)
    groups.write_bytes(b"no SQLite" * 1000)
    code, lines = await ends(f"local://{tmp_path}/log")
    assert code == 2
    assert lines == [
        f"error: {groups} is damaged: file is not a database",
        "fix: restore it from a copy",
    ]


async def test_kafka_s_transactions(ends):
    code, (first, second) = await ends("kafka+batch://127.0.0.1:1", settings=EXACTLY_ONCE)
    assert code == 2
    assert first.startswith("error: kafka+batch:// has no transactions")
    assert second.startswith("fix: ")


async def test_a_broker_that_is_not_there(ends):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        broker = f"kafka+batch://127.0.0.1:{taken.getsockname()[1]}"
        code, (first, second) = await ends(broker)
    assert code == 75
    assert first.startswith(f"error: {broker} does not answer: ")  # and why
    assert second.startswith("fix: ")


async def test_an_agent_s_own_error_is_shown_as_ever(run, tmp_path):  # noqa: F811
    """Only what ends the app is told in two lines; Faust restarts the agent that raised this."""
    body = """
from streamapp.plugin import Reject

@app.timer(0.1)
async def cast():
    await order.cast(b"1")

@app.agent()
async def order(stream):
    async for each in stream:
        raise Reject("order.bad", "this one is bad")
"""
    (tmp_path / "shop.py").write_text(PROGRAM.format(body=body, settings=""))
    arguments = ("-m", "faust", "-A", "shop", "worker", "--without-web", "-l", "warn")
    worker = run(*arguments, BROKER_URL=f"local://{tmp_path}/log")
    await worker.until(
        lambda worker: "Traceback" in worker.text() and "this one is bad" in worker.text()
    )
    assert worker.process.poll() is None
    await worker.kill()
