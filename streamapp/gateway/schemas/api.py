"""``/api``: what was learned of events, which came last, and what of the project clients set."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from streamapp.core.exports import Changes, Export
from streamapp.gateway.body import defer_continue, media_type, read_body
from streamapp.gateway.gateway import Gateway
from streamapp.gateway.problem import ProblemError, json_response
from streamapp.gateway.schemas import wire
from streamapp.gateway.schemas.configured import Configured
from streamapp.gateway.schemas.describe import json_schema
from streamapp.gateway.schemas.recent import RECENT_MAX
from streamapp.gateway.schemas.shape import Shape
from streamapp.gateway.schemas.shared import Log, Sharing
from streamapp.gateway.split import JSON, unknown_media
from streamapp.gateway.stamp import rfc3339

_LIMIT = 100
_CONFIG_BYTES_MAX = 65_536
_DIGITS = re.compile(r"[0-9]{1,6}")
_change = msgspec.json.Decoder(dict[str, Any])


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """The routes; what they tell of is followed while the application runs."""
    log = None if gateway.reader is None else Log(gateway.producer, gateway.reader)
    configured = Configured(log, gateway.config.export)
    sharing = Sharing(gateway.watch, log, [configured.topic], gateway.clock)
    gateway.opening.append(sharing.start)
    gateway.closing.append(sharing.stop)
    api = Api(gateway, configured)
    return [
        web.get("/api/schemas", api.schemas),
        web.get("/api/schemas/{name:.+}", api.schema),
        web.get("/api/events", api.events),
        web.get("/api/config", api.config),
        web.post("/api/config", api.configure, expect_handler=defer_continue),
    ]


class Api:
    """The handlers."""

    def __init__(self, gateway: Gateway, configured: Configured) -> None:
        self._gateway = gateway
        self._watch = gateway.watch
        self._configured = configured

    async def schemas(self, _: web.Request) -> web.Response:
        """Every type of event that was seen, by any gateway of this log."""
        await self._watch.catch_up()
        learned = self._watch.learned
        types = [
            wire.LearnedType(fields=len(shape.fields), **_seen(kind, shape))
            for kind, shape in learned.all().items()
        ]
        return json_response(wire.LearnedTypes(types, self._watch.unseen, learned.unkept))

    async def schema(self, request: web.Request) -> web.Response:
        """One type, with its fields."""
        await self._watch.catch_up()
        kind = request.match_info["name"]
        shape = self._watch.learned.whole(kind)
        if shape is None:
            raise ProblemError(
                404,
                "schema.unknown",
                f"no event of type {kind[:120]!r} was seen",
                "GET /api/schemas names those that were",
            )
        detail = wire.LearnedSchema(
            fields={
                path: wire.LearnedField(field.count, field.types)  # type: ignore[arg-type]
                for path, field in sorted(shape.fields.items())
            },
            is_cut=shape.is_cut,
            contexts=shape.contexts,
            sample=shape.sample and shape.sample.event,
            json_schema=json_schema(kind, shape),
            **_seen(kind, shape),
        )
        return json_response(detail)

    async def events(self, request: web.Request) -> web.Response:
        """The newest events that came through this process."""
        await self._watch.catch_up()
        newest = self._watch.newest.newest(_limit(request), request.query.get("type"))
        return json_response({"events": [one.as_dict() for one in newest]})

    async def config(self, _: web.Request) -> web.Response:
        """What holds for the export ``default``."""
        declared = self._configured.export
        await self._configured.read()
        changed = _set(self._configured.changes)
        effective = self._configured.effective
        return json_response(wire.ExportConfig(_values(declared), changed, _values(effective)))

    async def configure(self, request: web.Request) -> web.Response:
        """Change it."""
        media = media_type(request.headers.get("Content-Type", ""))
        if media not in JSON:
            raise unknown_media(media, "application/json")
        with self._gateway.budget.lease() as lease:
            body = await read_body(request, self._gateway.config, lease, _CONFIG_BYTES_MAX)
        address = await self._configured.change(_changes(body))
        changed = _set(self._configured.changes)
        return json_response(
            wire.ExportChanged("published", changed, address.partition, address.offset)
        )


def _seen(kind: str, shape: Shape) -> dict[str, Any]:
    return {
        "type": kind,
        "count": shape.count,
        "examined": shape.examined,
        "inferred": shape.inferred,
        "first_seen": rfc3339(shape.first_us),
        "last_seen": rfc3339(shape.last_us),
    }


def _values(export: Export) -> wire.ExportValues:
    return wire.ExportValues(
        export.webhook_url, export.ontology_iri, export.batch_size, export.interval_ms
    )


def _set(changes: Changes) -> wire.ExportChange:
    values: dict[str, Any] = msgspec.structs.asdict(changes)
    return wire.ExportChange(**{n: value for n, value in values.items() if value is not None})


def _limit(request: web.Request) -> int:
    said = request.query.get("limit", str(_LIMIT))
    if not _DIGITS.fullmatch(said) or not 1 <= int(said) <= RECENT_MAX:
        raise ProblemError(
            400, "request.limit", f"limit={said[:40]!r} is not 1 to {RECENT_MAX}", "give a number"
        )
    return int(said)


def _changes(body: bytes) -> Mapping[str, Any]:
    try:
        values = _change.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ProblemError(
            400, "export.config", "the body is not a JSON object", 'send {"batch_size": 50}'
        ) from None
    known = wire.ExportChange.__struct_fields__
    unknown = sorted(set(values).difference(known))
    if unknown or not values:
        what = f"{unknown[0][:64]!r} cannot be set" if unknown else "there is nothing to set"
        raise ProblemError(400, "export.config", what, f"set any of: {', '.join(known)}")
    return values
