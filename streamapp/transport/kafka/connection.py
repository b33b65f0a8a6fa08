"""One client's connections to a Kafka cluster: every wait ends, and errors are ours.

A request is tried again while that can help, up to a deadline; aiokafka's client underneath finds
leaders, reconnects and authenticates.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import MethodType
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import TopicPartition

from streamapp.core.errors import Halt, Refuse, Retry, StreamappError
from streamapp.transport.kafka.address import hosts_of
from streamapp.transport.kafka.errors import (
    LOGIN,
    is_final,
    translated,
    unknown_topic,
)
from streamapp.transport.kafka.rebound import rebound
from streamapp.transport.security import PLAINTEXT, Security

Answer = TypeVar("Answer")

#: How long one request may take, and how long one is tried again before we say Retry.
REQUEST_MS_MAX = 10_000
PATIENCE_S_MAX = 15.0
#: How long each host may take when we ask why none answers.
_PROBE_MS_MAX = 3_000
_BACKOFF_S = 0.1
#: In the alerts of those who do not take a client's certificate.
_OURS_IS_REFUSED = ("certificate", "unknown ca")

#: True in whatever our own clients run: what aiokafka says there we say ourselves, as an error.
_ours: ContextVar[bool] = ContextVar("_ours", default=False)


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not _ours.get() or logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


for _name in ("aiokafka", "aiokafka.conn", "aiokafka.cluster"):
    logging.getLogger(_name).addFilter(_is_not_ours)


@contextmanager
def _quietly() -> Iterator[None]:
    """Tasks that aiokafka starts within are quiet for all their life."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


async def _bootstrap(client: AIOKafkaClient) -> None:
    """As aiokafka's, which leaves its connection open when it is cancelled while that hangs."""
    made: list[AIOKafkaConnection] = []

    async def create(*arguments: Any, **options: Any) -> AIOKafkaConnection:
        made.append(await create_conn(*arguments, **options))
        return made[-1]

    try:
        await rebound(AIOKafkaClient.bootstrap, create_conn=create)(client)
    except BaseException:
        for connection in made:
            connection.close()
        raise


class Connection:
    """To the cluster at ``url``; start it before use."""

    def __init__(self, url: str, security: Security | None = None) -> None:
        self.url = url
        self._hosts = hosts_of(url)
        security = security or PLAINTEXT
        self._ways = security.ways
        self._options = security.client_options()
        self._client: AIOKafkaClient | None = None

    @property
    def client(self) -> AIOKafkaClient:
        """The started client."""
        if self._client is None:
            raise Halt("log.closed", f"{self.url} is not open", "start the client first")
        return self._client

    async def start(self) -> None:
        """Connect to one of the hosts and learn of the others.

        Raises:
            Retry: none answers.
            Refuse: they do, but do not let us in.
        """
        client = AIOKafkaClient(
            bootstrap_servers=list(self._hosts),
            client_id="streamapp",
            request_timeout_ms=REQUEST_MS_MAX,
            **self._options,
        )
        try:
            with _quietly():
                async with asyncio.timeout(PATIENCE_S_MAX):
                    await _bootstrap(client)
        except (KafkaError, OSError, TimeoutError) as error:
            await client.close()
            raise await self.why("a first connection") from error
        except BaseException:
            await client.close()
            raise
        self._client = client
        client._get_conn = MethodType(  # noqa: SLF001
            rebound(AIOKafkaClient._get_conn, create_conn=self._connect),  # noqa: SLF001
            client,
        )

    async def _connect(self, *arguments: Any, **options: Any) -> AIOKafkaConnection:
        """As aiokafka's; one that comes about while the client closes would never be closed."""
        made = await create_conn(*arguments, **options)
        if self._client is None:
            made.close()
            raise KafkaConnectionError("the client was closed meanwhile")
        return made

    async def stop(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, request: Any, node: int | None = None) -> Any:
        """One broker's answer, any broker's by default; not tried again."""
        client = self.client
        node = client.get_random_node() if node is None else node
        if node is None:
            raise NodeNotReadyError("no broker is known")
        return await client.send(node, request)

    async def ask_leader(
        self,
        topic: str,
        partition: int,
        request: Any,
        group: Hashable = ConnectionGroup.DEFAULT,
    ) -> Any:
        """The answer of the partition's leader, on the connection of ``group``; not tried again.

        A broker answers the requests of one connection in turn, so one that may wait for records
        needs a connection of its own.
        """
        client = self.client
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        if leader is None or leader == -1:
            await client.add_topic(topic)
            raise LeaderNotAvailableError
        return await client.send(leader, request, group=group)

    async def ask_coordinator(self, group: str, request: Any) -> Any:
        """The answer of the broker that keeps a consumer group; not tried again."""
        node = await self.client.coordinator_lookup(CoordinationType.GROUP, group)
        return await self.client.send(node, request, group=ConnectionGroup.COORDINATION)

    async def persist(
        self,
        attempt: Callable[[], Awaitable[Answer]],
        what: str,
        patience_s: float = PATIENCE_S_MAX,
    ) -> Answer:
        """Await ``attempt`` until it succeeds.

        Raises:
            Refuse: the cluster will not have it.
            Reject: one record is to blame.
            Retry: not within ``patience_s``.
            Halt: the connection was closed meanwhile.
        """
        last = KafkaError("no answer")
        try:
            with _quietly():
                async with asyncio.timeout(patience_s):
                    while True:
                        try:
                            return await attempt()
                        except KafkaError as error:
                            if is_final(error):
                                raise self.error(error, what) from error
                            last = error
                        await asyncio.sleep(_BACKOFF_S)
                        await self.client.force_metadata_update()
        except TimeoutError as error:
            if isinstance(last, UnknownTopicOrPartitionError):
                raise unknown_topic(what, self.url) from error
            if isinstance(last, NodeNotReadyError):
                raise await self.why(what) from error
            raise self.error(last, what) from error

    def error(self, error: BaseException, what: str) -> StreamappError:
        """Ours for one of the broker's or of aiokafka's."""
        return translated(error, what, self.url, self._ways)

    async def why(self, what: str) -> StreamappError:
        """Ask every host directly why it does not answer; aiokafka keeps that to itself."""
        reasons = []
        for host, port, _ in collect_hosts(list(self._hosts), randomize=False):
            try:
                with _quietly():
                    await self._probe(host, port)
            except LOGIN as error:
                return self.error(error, what)
            except ssl.SSLCertVerificationError as error:
                return Refuse(
                    "broker.certificate",
                    f"the certificate of {host}:{port} is not trusted: {error.verify_message}",
                    self._ways.authority,
                )
            except ssl.SSLError as error:
                told = str(error.reason or error).replace("_", " ").lower()
                if any(word in told for word in _OURS_IS_REFUSED):
                    return Refuse(
                        "broker.certificate",
                        f"{host}:{port} does not take our certificate: {told}",
                        self._ways.certificate,
                    )
                reasons.append(f"{host}:{port}: {told}")
            except TimeoutError:
                reasons.append(f"{host}:{port}: no answer within {_PROBE_MS_MAX // 1000} s")
            except (OSError, KafkaError) as error:
                reasons.append(f"{host}:{port}: {str(error) or type(error).__name__}")
            else:
                reasons.append(f"{host}:{port}: answers only now")
        told = " ".join("; ".join(reasons).split())[:500]
        return Retry(
            "log.unreachable", f"{self.url} does not answer: {told}", self._ways.unreachable
        )

    async def _probe(self, host: str, port: int) -> None:
        """Connect to one host and ask it something that a stranger may not ask."""
        connection = AIOKafkaConnection(
            host, port, request_timeout_ms=_PROBE_MS_MAX, **self._options
        )
        try:
            await connection.connect()
            await connection.send(MetadataRequest([]))
        except KafkaConnectionError:
            await self._shake_hands(host, port)
            raise KafkaConnectionError(
                f"it hangs up when spoken to; if it wants a user name or TLS, {self._ways.protocol}"
            ) from None
        finally:
            connection.close()

    async def _shake_hands(self, host: str, port: int) -> None:
        """Hear what TLS has to say: by 1.3 a broker judges our certificate when we are done.

        Raises:
            OSError: it does not let us in; ``ssl.SSLError`` where it says why.
        """
        if (context := self._options.get("ssl_context")) is None:
            return
        async with asyncio.timeout(_PROBE_MS_MAX / 1000):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                await reader.read(1)
            finally:
                writer.transport.abort()
