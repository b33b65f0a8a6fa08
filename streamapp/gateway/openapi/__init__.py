"""What the gateway's routes take and answer, for programs and for people.

``/openapi.json`` is OpenAPI 3.1 (https://spec.openapis.org/oas/v3.1.0), made from the wire types
and from the tables in this folder; ``/docs`` is the same as a page.  Both are open, and made once.
"""

from functools import cached_property
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from streamapp.gateway.gateway import Gateway
from streamapp.gateway.openapi import (
    attachments,
    chat,
    confluent,
    inference,
    native,
    page,
    schemas,
    services,
)
from streamapp.gateway.openapi.model import (
    JSON,
    Content,
    Operation,
    Parameter,
    Reply,
    document,
)
from streamapp.gateway.problem import SERVER

PATHS = ("/openapi.json", "/docs")
_TOPIC_PATTERN = "^[A-Za-z0-9._-]{1,249}$"
_TAGS = [
    {"name": native.EVENTS, "description": "Events of any kind, each with its own outcome."},
    {"name": "Webhooks", "description": "Deliveries of services, proven by their signature."},
    {"name": confluent.V2_TAG, "description": "Confluent's REST proxy, v1 and v2."},
    {"name": confluent.CONSUMERS, "description": "Members of consumer groups, over HTTP."},
    {"name": confluent.V3_TAG, "description": "Confluent's REST API, v3."},
    {"name": schemas.LEARNED, "description": "What events have looked like."},
    {"name": schemas.CONFIG, "description": "What clients may change."},
    {"name": chat.TAG, "description": "Events out of what somebody says."},
    {"name": inference.TAG, "description": "Models, by the Open Inference Protocol v2."},
    {"name": services.TAG, "description": "Operations on tables, and runs of workflows."},
    {"name": "Operation", "description": "Open to probes and scrapers."},
]


def routes(gateway: Gateway) -> list[web.RouteDef]:
    """``/openapi.json`` and ``/docs``."""
    documents = Documents(gateway)
    return [web.get("/openapi.json", documents.openapi), web.get("/docs", documents.docs)]


def operations() -> list[Operation]:
    """Every operation of the gateway; a test compares them with the app's routes."""
    return [
        *native.operations(),
        *attachments.operations(),
        *confluent.operations(),
        *schemas.operations(),
        *chat.operations(),
        *inference.operations(),
        *services.operations(),
        *_documents(),
    ]


def openapi(gateway: Gateway) -> dict[str, Any]:
    """The document."""
    return document(
        operations(),
        info={
            "title": "streamapp gateway",
            "version": version("streamapp"),
            "description": "HTTP in, events on the log, and an answer when the log has them. "
            "Errors of our own routes are problems (RFC 9457) with a `code` and a `fix`; those "
            "of Confluent's routes have its `error_code` and `message`.",
        },
        path_parameters=_path_parameters(gateway),
        tags=_TAGS,
        guarded=bool(gateway.config.token or gateway.config.tokens_file),
    )


class Documents:
    """The handlers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @cached_property
    def _document(self) -> dict[str, Any]:
        return openapi(self._gateway)

    @cached_property
    def _json(self) -> bytes:
        return msgspec.json.encode(self._document)

    @cached_property
    def _page(self) -> bytes:
        return page.render(self._document).encode()

    async def openapi(self, _: web.Request) -> web.Response:
        """The document."""
        return web.Response(body=self._json, headers={**SERVER, "Content-Type": JSON})

    async def docs(self, _: web.Request) -> web.Response:
        """The page."""
        headers = {**SERVER, "Content-Type": "text/html; charset=utf-8", **page.HEADERS}
        return web.Response(body=self._page, headers=headers)


def _documents() -> list[Operation]:
    about = {
        "/openapi.json": ("This document", Content(JSON, {"type": "object"})),
        "/docs": ("This document as a page", Content("text/html", {"type": "string"})),
    }
    return [
        Operation("GET", path, "Operation", summary, {200: Reply("It.", (content,))})
        for path, (summary, content) in about.items()
    ]


def _path_parameters(gateway: Gateway) -> dict[str, Parameter]:
    topic: dict[str, Any] = {"type": "string", "pattern": _TOPIC_PATTERN}
    named = {"type": "string", "minLength": 1}
    known: dict[str, tuple[str, dict[str, Any]]] = {
        "topic": ("A topic of the log.", topic),
        "OPTIONS /v1/events/{topic}:topic": (
            "Any name: who delivers will be told.",
            named,
        ),
        "POST /v1/events/{topic}:topic": (
            "A topic that takes events.",
            {"type": "string", "enum": sorted(gateway.targets)},
        ),
        "partition": ("A partition's number.", {"type": "integer", "minimum": 0}),
        "cluster": (
            "Any id is taken; the answer has the cluster's own.",
            named,
        ),
        "group": ("A consumer group.", named),
        "instance": ("A consumer instance of the group.", named),
        "name": ("A type of event.", {"type": "string", "minLength": 1}),
        "sha256": (
            "The content's sha256, in hexadecimal digits.",
            {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        ),
        "model": (
            "A model: `task/name`, or a short name of routes.toml.",
            {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)?$"},
        ),
        "version": ("A version's number.", {"type": "integer", "minimum": 1, "maximum": 999999999}),
        "service": ("A service: text, integrate, pipeline, infer, or one of your own.", named),
        "operation": ("An operation of the service.", named),
        "workflow": ("A file in the project's folder workflows/, without its suffix.", named),
        "run": ("A run's id.", named),
        "output": ("A file that the run wrote.", named),
        "source": ("A table [webhooks.NAME] of streamapp.toml.", named),
    }
    return {
        key: Parameter(key.rpartition(":")[2], about, schema, "path")
        for key, (about, schema) in known.items()
    }
