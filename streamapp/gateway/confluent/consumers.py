"""v2's consumer: instances of a group, by HTTP; and v1's way to read, for its clients."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from streamapp.core.errors import Refuse
from streamapp.core.scopes import Need, Verb
from streamapp.gateway.body import defer_continue, read_body
from streamapp.gateway.confluent.configs import name_of, options_of
from streamapp.gateway.confluent.directory import Directory
from streamapp.gateway.confluent.errors import (
    NO_PARTITION,
    ConfluentError,
    bad_request,
    unprocessable,
)
from streamapp.gateway.confluent.formats import encode
from streamapp.gateway.confluent.instances import Found, Instance, Log, Place
from streamapp.gateway.confluent.media import Accepted, accepted, agreed_format, answer, format_of
from streamapp.gateway.confluent.patterns import matcher
from streamapp.gateway.confluent.registry import Registry
from streamapp.gateway.connections import write_answer
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import SERVER
from streamapp.gateway.scopes import allowed, require

TOPICS_MAX = 100
PARTITIONS_MAX = 1000
#: Of a request that names topics, partitions or offsets: small ones, decoded in one go.
BODY_BYTES_MAX = 1 << 20
_encode = msgspec.json.Encoder().encode


class _Partition(msgspec.Struct):
    topic: str
    partition: int


class _Offset(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    metadata: str | None = None


class _Subscription(msgspec.Struct):
    topics: list[str] | None = None
    topic_pattern: str | None = None


class _Partitions(msgspec.Struct):
    partitions: list[_Partition]


class _Offsets(msgspec.Struct):
    offsets: list[_Offset]


def routes(gateway: Gateway, directory: Directory) -> list[web.RouteDef]:
    """The routes."""
    consumers = Consumers(gateway, directory)
    at = "/consumers/{group}/instances/{instance}"

    def post(path: str, handler: Callable[..., Any]) -> web.RouteDef:
        return web.post(path, handler, expect_handler=defer_continue)

    def get(path: str, handler: Callable[..., Any]) -> web.RouteDef:
        return web.get(path, handler, allow_head=False)  # a look must not take records away

    return [
        post("/consumers/{group}", consumers.create),
        web.delete(at, consumers.delete),
        post(at + "/subscription", consumers.subscribe),
        get(at + "/subscription", consumers.subscription),
        web.delete(at + "/subscription", consumers.unsubscribe),
        post(at + "/assignments", consumers.assign),
        get(at + "/assignments", consumers.assignments),
        get(at + "/records", consumers.records),
        get(at + "/topics/{topic}", consumers.records),
        post(at + "/offsets", consumers.commit),
        get(at + "/offsets", consumers.committed),
        post(at + "/positions", consumers.seek),
        post(at + "/positions/beginning", consumers.seek_to_beginning),
        post(at + "/positions/end", consumers.seek_to_end),
    ]


class Consumers:
    """The handlers."""

    def __init__(self, gateway: Gateway, directory: Directory) -> None:
        self._gateway = gateway
        self._directory = directory
        self._registry = Registry(gateway.config.consumer_instances_max)
        gateway.closing.append(self._registry.close)

    async def create(self, request: web.Request) -> web.Response:
        """A new instance; its id and the URL under which it is used."""
        accepted(request)
        config = await self._body(request, dict[str, Any]) or {}
        options = options_of(config, self._gateway.config.consumer_instance_timeout_s)
        try:
            origin = request.url.origin()
        except ValueError:
            raise bad_request("Host is no host and port") from None
        group = request.match_info["group"]
        instance = Instance(group, options, self._log(), self._gateway.clock)
        name = await self._registry.add(group, name_of(config), instance)
        path = f"consumers/{quote(group, safe='')}/instances/{quote(name, safe='')}"
        body = {"instance_id": name, "base_uri": f"{origin}/{path}"}
        return answer(body, request)

    async def delete(self, request: web.Request) -> web.Response:
        """End it; what it delivered is committed if it commits by itself."""
        self._instance(request)
        group, name = request.match_info["group"], request.match_info["instance"]
        await self._registry.remove(group, name)
        return _nothing()

    async def subscribe(self, request: web.Request) -> web.Response:
        """Subscribe to topics by name, or to those there are now that a pattern names."""
        accepted(request)
        instance = self._instance(request)
        wanted = await self._body(request, _Subscription)
        if wanted is None or (wanted.topics is None) == (wanted.topic_pattern is None):
            raise unprocessable("give topics or topic_pattern")
        topics = wanted.topics
        if topics is None:
            pattern = matcher(wanted.topic_pattern or "")
            topics = [
                name
                for name in await self._directory.topics()
                if pattern(name) and allowed(request, Need(Verb.CONSUME, name))
            ]
        if not 1 <= len(topics) <= TOPICS_MAX:
            raise unprocessable(f"{len(topics)} topics, not 1 to {TOPICS_MAX}")
        for topic in topics:
            require(request, Verb.CONSUME, topic)
            await self._directory.topic(topic)
        async with self._use(request, instance):
            await instance.subscribe(topics)
        return _nothing()

    async def subscription(self, request: web.Request) -> web.Response:
        """The topics it is subscribed to."""
        accepted(request)
        instance = self._instance(request)
        instance.touch()
        body: dict[str, Any] = {"topics": sorted(instance.topics)}
        return answer(body, request)

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """Leave the group's reading."""
        instance = self._instance(request)
        async with self._use(request, instance):
            await instance.unsubscribe()
        return _nothing()

    async def assign(self, request: web.Request) -> web.Response:
        """Read given partitions, whatever others of the group read."""
        accepted(request)
        instance = self._instance(request)
        places = await self._places(request)
        async with self._use(request, instance):
            await instance.assign(places)
        return _nothing()

    async def assignments(self, request: web.Request) -> web.Response:
        """The partitions it reads."""
        accepted(request)
        instance = self._instance(request)
        async with self._use(request, instance):
            places = sorted(await instance.assignment())
        found = [{"topic": topic, "partition": partition} for topic, partition in places]
        return answer({"partitions": found}, request)

    async def records(self, request: web.Request) -> web.StreamResponse:
        """The next records, as soon as there are any."""
        config = self._gateway.config
        instance = self._instance(request)
        options = instance.options
        taken = agreed_format(request, options.format)
        wait_ms = _number(request, "timeout", options.wait_ms, round(1000 * config.poll_s_max))
        most = config.poll_bytes_max
        bytes_max = _number(request, "max_bytes", most, most) or most
        topic = request.match_info.get("topic")
        stopping = self._gateway.life.stopping
        async with self._use(request, instance):
            if topic is not None:
                await self._directory.topic(topic)
                await instance.subscribe_once(topic)
            with self._gateway.budget.lease() as lease:
                found = await instance.read(bytes_max, wait_ms, lease, stopping)
                bodies = _bodies(found, instance)
                lease.take(nbytes=sum(map(len, bodies)))
                response = await self._written(request, taken, bodies)
            instance.delivered(found, len(bodies))
        return response

    async def commit(self, request: web.Request) -> web.Response:
        """Commit given offsets, or without any what was delivered.

        An offset is that of the last record that was done (Confluent), or for an instance created
        in Strimzi's words of the next one to read.
        """
        accepted(request)
        instance = self._instance(request)
        strimzi = instance.options.strimzi
        wanted = await self._body(request, dict[str, Any])
        offsets: Mapping[Place, int] | None = None
        if wanted:
            past = 0 if strimzi else 1
            offsets = {
                place: offset + past
                for place, offset in (await self._offsets(request, wanted)).items()
            }
        async with self._use(request, instance):
            await instance.commit(offsets)
        return _nothing() if strimzi else answer([], request)

    async def committed(self, request: web.Request) -> web.Response:
        """What the group committed for the partitions that the body names."""
        accepted(request)
        instance = self._instance(request)
        places = await self._places(request)
        async with self._use(request, instance):
            committed = await instance.committed()
        found = [
            {"topic": topic, "partition": part, "offset": committed[topic, part], "metadata": ""}
            for topic, part in places
            if (topic, part) in committed
        ]
        return answer({"offsets": found}, request)

    async def seek(self, request: web.Request) -> web.Response:
        """Go on from given offsets."""
        accepted(request)
        instance = self._instance(request)
        wanted = await self._body(request, dict[str, Any]) or {}
        offsets = await self._offsets(request, wanted)
        async with self._use(request, instance):
            await instance.seek(offsets)
        return _nothing()

    async def seek_to_beginning(self, request: web.Request) -> web.Response:
        """Go on from the first records that are kept."""
        return await self._seek_to(request, end=False)

    async def seek_to_end(self, request: web.Request) -> web.Response:
        """Go on behind the last records."""
        return await self._seek_to(request, end=True)

    async def _seek_to(self, request: web.Request, *, end: bool) -> web.Response:
        accepted(request)
        instance = self._instance(request)
        places = await self._places(request)
        async with self._use(request, instance):
            await instance.seek_to(places, end=end)
        return _nothing()

    # -- inside

    def _log(self) -> Log:
        gateway = self._gateway
        if gateway.reader is None or gateway.members is None:
            raise Refuse("gateway.reader", "this gateway has no reader", "give it one")
        return Log(gateway.reader, self._directory.admin, gateway.members)

    def _instance(self, request: web.Request) -> Instance:
        """The instance, for who may consume what it reads, whoever created it."""
        found = self._registry.get(request.match_info["group"], request.match_info["instance"])
        _require_reads(request, found)
        return found

    @asynccontextmanager
    async def _use(self, request: web.Request, instance: Instance) -> AsyncIterator[None]:
        """Have it to oneself; what it reads may be something else by then."""
        async with self._registry.use(instance):
            _require_reads(request, instance)
            yield

    async def _body(self, request: web.Request, kind: type[Any]) -> Any:
        """The body as ``kind``; None when there is none."""
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease, BODY_BYTES_MAX)
            if not body.strip() or body == b"null":
                return None
            format_of(request)
            try:
                return msgspec.json.decode(body, type=kind, strict=False)
            except msgspec.ValidationError as error:
                raise unprocessable(str(error)) from None
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise bad_request(f"the body is not JSON: {error}") from None

    async def _places(self, request: web.Request) -> list[Place]:
        wanted = await self._body(request, _Partitions)
        if wanted is None:
            raise ConfluentError(NO_PARTITION, "Partition not found.")
        _count(wanted.partitions)
        for place in wanted.partitions:
            require(request, Verb.CONSUME, place.topic)
            await self._directory.partition(place.topic, str(place.partition))
        return [(place.topic, place.partition) for place in wanted.partitions]

    async def _offsets(self, request: web.Request, wanted: Mapping[str, Any]) -> dict[Place, int]:
        try:
            offsets = msgspec.convert(wanted, _Offsets, strict=False).offsets
        except msgspec.ValidationError as error:
            raise unprocessable(str(error)) from None
        _count(offsets)
        for place in offsets:
            require(request, Verb.CONSUME, place.topic)
            await self._directory.partition(place.topic, str(place.partition))
            if not 0 <= place.offset < 1 << 62:
                raise unprocessable(f"offset {place.offset} is none")
        return {(place.topic, place.partition): place.offset for place in offsets}

    async def _written(
        self, request: web.Request, taken: Accepted, bodies: list[bytes]
    ) -> web.StreamResponse:
        """The answer on its way, before what is in it counts as delivered."""
        body = b"[" + b",".join(bodies) + b"]"
        response = web.Response(body=body, headers={**SERVER, "Content-Type": taken.media})
        await write_answer(request, response, self._gateway.config.answer_s_max)
        return response


def _require_reads(request: web.Request, instance: Instance) -> None:
    for topic in instance.reads:
        require(request, Verb.CONSUME, topic)


def _bodies(found: Found, instance: Instance) -> list[bytes]:
    """Records as JSON; up to the first that cannot be said in the instance's format.

    Raises:
        ConfluentError: 42203 that is the very first; it says where it is.
    """
    bodies: list[bytes] = []
    for topic, partition, record in found.records:
        try:
            bodies.append(_encode(_body_of(topic, partition, record, instance)))
        except ConfluentError as error:
            if bodies:
                break
            raise ConfluentError(
                error.error_code, f"{topic}-{partition} offset {record.offset}: {error.message}"
            ) from None
    return bodies


def _body_of(topic: str, partition: int, record: Any, instance: Instance) -> dict[str, Any]:
    format_ = instance.options.format
    body = {
        "topic": topic,
        "key": encode(record.key, format_, "key"),
        "value": encode(record.value, format_),
        "partition": partition,
        "offset": record.offset,
    }
    if instance.options.strimzi:
        body["timestamp"] = record.timestamp
        body["headers"] = [
            {"key": name, "value": encode(value, "binary")} for name, value in record.headers
        ]
    return body


def _count(items: list[Any]) -> None:
    if len(items) > PARTITIONS_MAX:
        raise unprocessable(f"{len(items)} partitions, {PARTITIONS_MAX} at most")


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name, "")
    if not text or text == "-1":
        return min(default, most)
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise bad_request(f"{name}={text[:40]} is not a number")
    return min(int(text), most)


def _nothing() -> web.Response:
    return web.Response(status=204, headers=SERVER)
