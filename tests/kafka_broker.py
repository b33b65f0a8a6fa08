"""A real Apache Kafka broker on loopback, without Docker: a pytest plugin and a program.

Maven resolves the jars of ``kafka/pom.xml`` once, into a cache outside the tree. A broker is one
KRaft node, broker and controller in one process, with a data folder of its own; it ends with
whoever started it, even by kill -9.

    python tests/kafka_broker.py run [--port 9092] [--sasl]
    python tests/kafka_broker.py status | stop
"""

import asyncio
import concurrent.futures
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from kafka_jars import Unavailable, jars
from kafka_prepared import BRIEF, classes, format_data
from kafka_security import MECHANISMS, USERS, listeners

START_S = 90.0
STOP_S = 30.0

#: Watches the pipe of whoever started it: when that closes, Java goes, whatever the reason was.
_DIE_WITH_PARENT = """
exec 3<&0
(read -r _ <&3; kill -9 $$) 2>/dev/null &
exec 3<&-
exec "$@" </dev/null
"""

_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,\
TLS:SSL,SASLTLS:SASL_SSL,MUTUAL:SSL
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
message.max.bytes=17825792
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
metadata.max.idle.interval.ms=0
log.cleaner.backoff.ms=100
log.cleaner.min.cleanable.ratio=0.01
log.cleaner.dedupe.buffer.size=16777216
log.retention.check.interval.ms=500
log.initial.task.delay.ms=100
"""


class Broker:
    """One broker; :meth:`start`, :meth:`stop` and :meth:`kill` any number of times.

    Port and data stay the same from start to start. The methods block: in a coroutine call them
    by ``asyncio.to_thread``.
    """

    def __init__(
        self,
        folder,
        *,
        port=0,
        sasl=False,
        authority=None,
        brief=False,
        say=lambda _: None,
        **properties,
    ):
        """``authority``: issues the broker's certificate, for three listeners with TLS as well.

        These are ``tls_url``, ``mutual_url`` where clients show a certificate of the same authority,
        and with ``sasl`` ``sasl_tls_url``.

        ``brief``: it is there for minutes, and not measured: two thirds of the work to start.
        """
        self.folder = Path(folder)
        self.port, self.controller_port, *more = _free_ports(port)
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.url = f"kafka+batch://{self.bootstrap}"
        asked = {"SASL": sasl, "TLS": authority, "SASLTLS": sasl and authority, "MUTUAL": authority}
        there = {
            name: f"127.0.0.1:{at}"
            for (name, on), at in zip(asked.items(), more, strict=True)
            if on
        }
        urls = {name: f"kafka+batch://{address}" for name, address in there.items()}
        self.sasl_url, self.tls_url = urls.get("SASL"), urls.get("TLS")
        self.sasl_tls_url, self.mutual_url = urls.get("SASLTLS"), urls.get("MUTUAL")
        self._more = "".join(f",{name}://{address}" for name, address in there.items())
        self._sasl, self._authority, self._brief = sasl, authority, brief
        self._properties, self._say = properties, say
        self._java = None

    @property
    def running(self):
        return self._java is not None and self._java.poll() is None

    @property
    def pid(self):
        return self._java.pid

    @property
    def log(self):
        """What the broker printed."""
        path = self.folder / "broker.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, *java):
        """Run it, and return when it answers.

        ``java``: options in place of those by which a brief one finds its classes.
        """
        if self.running:
            return self
        found = jars(self._say)
        if self._brief:
            java = BRIEF + (java or classes(found, _start_and_stop))
        if not (self.folder / "broker.properties").exists():
            self._format(found)
        self._spawn(found, java)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, wait_s=STOP_S):
        """SIGTERM, and SIGKILL when that does not help."""
        if self.running:
            self._java.send_signal(signal.SIGTERM)
            try:
                self._java.wait(wait_s)
            except subprocess.TimeoutExpired:
                self._say("the broker did not stop; killing it")
        self.kill()

    def kill(self):
        """SIGKILL."""
        if self._java is not None:
            try:
                os.killpg(self._java.pid, signal.SIGKILL)  # the watcher too
            except ProcessLookupError:
                pass
            self._java.wait()
            self._java.stdin.close()
            self._java = None

    def signal(self, number):
        """Any other signal, such as SIGSTOP."""
        self._java.send_signal(number)

    def remove(self):
        """Kill it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _format(self, found):
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "broker.properties.part"
        path.write_text(self._text())
        scram = [
            f"--add-scram={mechanism}=[name={user},password={word}]"
            for mechanism in MECHANISMS[1:]
            for user, word in USERS.items()
        ]
        format_data(found, self.folder / "data", path, scram if self._sasl else [])
        path.rename(self.folder / "broker.properties")

    def _text(self):
        text = _PROPERTIES.format(
            port=self.port,
            controller=self.controller_port,
            data=self.folder / "data",
            more=self._more,
        )
        text += listeners(sasl=self._sasl, authority=self._authority)
        for name, value in self._properties.items():
            text += f"{name.replace('_', '.')}={value}\n"
        return text

    def _spawn(self, found, java):
        options = ["-Xms256m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError", *java]
        with (self.folder / "broker.log").open("ab") as log:
            self._java = subprocess.Popen(
                ["sh", "-c", _DIE_WITH_PARENT, "sh", "java", *options, "-Dlog4j2.level=INFO",
                 "-Djava.awt.headless=true", "-cp", f"{found}/*",
                 "kafka.Kafka", str(self.folder / "broker.properties")],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True,  # ctrl-C is for whoever started it
            )  # fmt: skip

    def _wait_until_it_answers(self):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if not self.running:
                raise RuntimeError(f"Kafka ended at once:\n{self._tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
                continue
            if _run(_answers(self.bootstrap)):
                return
            time.sleep(0.05)
        raise RuntimeError(f"Kafka did not answer within {START_S:.0f} s:\n{self._tail()}")

    def _tail(self):
        return "\n".join(self.log.splitlines()[-40:])


def _start_and_stop(java):
    with tempfile.TemporaryDirectory(prefix="streamapp-kafka-") as folder:
        broker = Broker(folder, brief=True, sasl=True)
        try:
            broker.start(*java).stop(START_S)  # it writes on its way out what it has loaded
        finally:
            broker.kill()


def _run(coroutine):
    """In a thread: a loop may run in this one."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


async def _answers(bootstrap):
    """Whether the broker lists itself, so that topics can be made."""
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=2000)
    try:
        await client.bootstrap()
        metadata = await client.fetch_all_metadata()
        return bool(metadata.brokers())
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()


async def _remove_our_topics(bootstrap):
    """Those of the catalogue, and so what any group has committed of them."""
    from aiokafka.admin import AIOKafkaAdminClient

    from streamapp.topics.catalogue import load

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        ours = {topic.name for topic in load()}
        async with asyncio.timeout(STOP_S):
            while there := ours.intersection(await admin.list_topics()):
                await admin.delete_topics(sorted(there))
    finally:
        await admin.close()


def _free_ports(first=0):
    """Six ports below those that the system gives to clients, so that a restart finds them free."""
    found = [first] if first else []
    while len(found) < 6:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


# As a pytest plugin

_BROKER = pytest.StashKey()


def require():
    """Skip where no broker can run; fail there when REQUIRE_KAFKA=1."""
    try:
        jars()
    except Unavailable as error:
        (pytest.fail if os.environ.get("REQUIRE_KAFKA") == "1" else pytest.skip)(str(error))


def brief_broker(**options):
    """A broker in a folder of its own, for a test: whoever makes it removes it."""
    return Broker(tempfile.mkdtemp(prefix="streamapp-kafka-"), brief=True, **options)


@pytest.fixture(scope="session")
def kafka(pytestconfig):
    """The session's broker; a test that finds it stopped by another gets it started again.

    Everybody may do all on ``bootstrap``; ``sasl_url`` asks who comes.  Topics and groups are all
    tests': give them names of your own.
    """
    require()
    broker = brief_broker(sasl=True)
    try:
        pytestconfig.stash[_BROKER] = broker.start()
        yield broker
    finally:
        broker.remove()


@pytest.fixture
def kafka_without_topics(kafka):
    """The session's broker for processes of ours, whose topics have one name: none is there yet."""
    _run(_remove_our_topics(kafka.bootstrap))
    yield kafka
    kafka.start()
    _run(_remove_our_topics(kafka.bootstrap))


@pytest.fixture
def kafka_broker():
    """A maker of brokers of one's own: ``kafka_broker(sasl=True).start()``."""
    require()
    made = []

    def make(**options):
        made.append(brief_broker(**options))
        return made[-1]

    yield make
    for broker in made:
        broker.remove()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    broker = item.config.stash.get(_BROKER, None)
    if broker is not None:  # whoever asks for it in the middle of a test is not known yet
        broker.start()


if __name__ == "__main__":
    from kafka_program import main

    sys.exit(main())
