"""Our own routes, described."""

from collections.abc import Mapping
from typing import Any

import msgspec

from streamapp.core.event import KEY_CHARS_MAX
from streamapp.gateway import arrow, wire
from streamapp.gateway.cloudevents import INTEGERS
from streamapp.gateway.forms import FORM
from streamapp.gateway.idempotency import IDEMPOTENCY_KEY_CHARS_MAX
from streamapp.gateway.openapi.model import (
    JSON,
    PROBLEM,
    Content,
    Named,
    Operation,
    Parameter,
    Reply,
    reference,
)
from streamapp.gateway.stamp import CLEAN
from streamapp.topics.catalogue import defaults

EVENTS = "Events"
PROBLEMS = Content(PROBLEM, wire.Problem)
#: What reading any body may be answered with, and what any guarded route may.
OF_BODIES = (400, 408, 413, 415, 417, 429, 503)
GUARDED = (401, 403, 429, 503)
#: Times that Python can show, Unix milliseconds.
_TIMES_MS = -62_135_596_800_000, 253_402_300_799_999
_SET_ASIDE = Reply(
    "Its topic's schema does not take it, and the topic of dead letters has it.",
    (Content(JSON, wire.DeadLetter),),
)
_KEY = Parameter(
    "Idempotency-Key",
    "What makes a repeat the same event: the id of an event without one (of many, with -LINE).",
    {
        "type": "string",
        "pattern": "^[ -~]*[!#-~][ -~]*$",
        "maxLength": IDEMPOTENCY_KEY_CHARS_MAX,
    },
    "header",
)
_WAIT = Parameter(
    "wait",
    "What the answer waits for: that the log has the events, or that the gateway has.",
    {"enum": ["ack", "accepted"], "default": "ack"},
)
_HELLO = {"type": "Greeting", "conversation_id": "c1", "message": "hello"}
_CLOUD = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "Order", "data": _HELLO}
_LINE = {"line": 1, "status": "received", "id": "8f0c", "partition": 0, "offset": 17}
_BAD = {
    "line": 2,
    "status": "rejected",
    "code": "event.json",
    "error": "not JSON: Expected `:`",
    "fix": "send a JSON object",
}


def operations() -> list[Operation]:
    """What ``native.routes``, ``webhooks.routes`` and ``operations.routes`` have."""
    event = Named("Event", event_schema())
    return [_ingest(event), *_events(event), *_handshakes(), _webhook(), *_probes()]


def event_schema() -> dict[str, Any]:
    """The schema of an event's JSON, with what times may be, and texts that become attributes."""
    path = defaults("topics") / "schemas" / "event.v1.json"
    schema: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    about = schema["properties"]["time"]["description"]
    schema["properties"]["time"] = {
        "description": about,
        "anyOf": [
            {"type": "string", "format": "date-time"},
            {"type": "integer", "minimum": _TIMES_MS[0], "maximum": _TIMES_MS[1]},
            {"type": "null"},
        ],
    }
    for attribute in ("id", "type", "source"):
        schema["properties"][attribute]["pattern"] = CLEAN
    return {name: value for name, value in schema.items() if not name.startswith("$")}


def _ingest(event: Named) -> Operation:
    return Operation(
        "POST",
        "/ingest",
        EVENTS,
        "Send one event",
        {200: Reply("The log has it.", (Content(JSON, wire.Received),)), 202: _SET_ASIDE},
        about="The body may be compressed (`Content-Encoding: gzip` or `zstd`). `traceparent` and "
        "`tracestate` go on with the event; so do CloudEvents attributes in `ce-*` headers. A form "
        "(`multipart/form-data`) has the event in its field `event`, attachments in the others.",
        errors=(*OF_BODIES, *GUARDED, 422),
        problem=PROBLEMS,
        bodies=(Content(JSON, event, _HELLO), Content(FORM, _form(event))),
        parameters=(_KEY,),
    )


def _form(event: Named) -> dict[str, Any]:
    file = {"type": "string", "format": "binary", "description": "An attachment; more may follow."}
    return {
        "type": "object",
        "required": ["event"],
        "properties": {"event": reference(event.name), "file": file},
    }


def _events(event: Named) -> list[Operation]:
    lines = Content(JSON, wire.Lines)
    cloud = Named("CloudEvent", _cloud_event(event))
    bodies = (
        Content(JSON, (event, {**_many(event), "minItems": 1}), [_HELLO, {"message": "world"}]),
        Content("application/x-ndjson", _TEXT, '{"message": "hello"}\n{"message": "world"}\n'),
        Content(arrow.MEDIA, {"type": "string", "contentMediaType": arrow.MEDIA}),
        Content("application/cloudevents+json", cloud, _CLOUD),
        Content("application/cloudevents-batch+json", _many(cloud), [_CLOUD]),
        Content(FORM, _form(event)),
    )
    replies = {
        200: Reply("The log has all of them.", (Content(JSON, wire.Lines, _lines(_LINE)),)),
        202: Reply("The gateway has all of them (`wait=accepted`).", (lines,)),
        207: Reply("Some were taken.", (Content(JSON, wire.Lines, _lines(_LINE, _BAD)),)),
        400: Reply("None was taken, or the body is none.", (lines,)),
    }
    shared = {
        "about": "A bad event costs only itself: the answer has a line for each. The body may be "
        "compressed (`Content-Encoding: gzip` or `zstd`). CloudEvents in binary mode have "
        "their attributes in `ce-*` headers.",
        "problem": PROBLEMS,
        "bodies": bodies,
        "parameters": (_WAIT, _KEY),
    }
    errors = (*OF_BODIES, *GUARDED, 422)
    names = {
        "/v1/events": "Send events",
        "/v1/events/{topic}": "Send events to a topic",
        "/events": "Send events, under the name that CloudEvents clients know",
    }
    return [
        Operation(
            "POST",
            path,
            EVENTS,
            summary,
            replies,
            errors=(*errors, 404) if "{" in path else errors,
            **shared,  # type: ignore[arg-type]
        )
        for path, summary in names.items()
    ]


def _handshakes() -> list[Operation]:
    origin = Parameter(
        "WebHook-Request-Origin",
        "Who wants to deliver.",
        {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?$"},
        "header",
    )
    headers = {
        "WebHook-Allowed-Origin": "Who may deliver.",
        "WebHook-Allowed-Rate": "How fast: `*`.",
    }
    return [
        Operation(
            "OPTIONS",
            path,
            EVENTS,
            "Ask whether events may be delivered (CloudEvents)",
            {200: Reply("They may.", headers=headers)},
            errors=(400, 403, 429, 503),
            problem=PROBLEMS,
            parameters=(origin,),
        )
        for path in ("/v1/events", "/v1/events/{topic}", "/events")
    ]


def _webhook() -> Operation:
    taken = Content(JSON, (wire.Received, wire.Pong))
    return Operation(
        "POST",
        "/webhooks/{source}",
        "Webhooks",
        "Deliver a signed webhook",
        {200: Reply("The log has it; a ping is not kept.", (taken,)), 202: _SET_ASIDE},
        about="Signed as Standard Webhooks, GitHub or Stripe do it; no token is asked for.",
        errors=(*OF_BODIES, *GUARDED, 404),
        problem=PROBLEMS,
        bodies=(
            Content(JSON, {}),
            Content(
                "application/x-www-form-urlencoded",
                {
                    "type": "object",
                    "properties": {"payload": {"type": "string"}},
                    "required": ["payload"],
                },
            ),
        ),
    )


def _probes() -> list[Operation]:
    ready = Content(JSON, wire.Readiness)
    replies: Mapping[str, tuple[str, Mapping[int, Reply]]] = {
        "/healthz": (
            "Whether the process turns",
            {200: Reply("It does.", (Content(JSON, wire.Health),))},
        ),
        "/readyz": (
            "Whether events would be taken now",
            {
                200: Reply("They would.", (ready,)),
                503: Reply("They would not, and why.", (ready,)),
            },
        ),
        "/metrics": (
            "Metrics",
            {200: Reply("In Prometheus's text format.", (Content("text/plain", _TEXT),))},
        ),
    }
    return [
        Operation("GET", path, "Operation", summary, found)
        for path, (summary, found) in replies.items()
    ]


_TEXT = {"type": "string"}


def _cloud_event(event: Named) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": KEY_CHARS_MAX, "pattern": CLEAN}
    extension = {
        "type": ["string", "boolean", "integer", "null"],
        "pattern": CLEAN,
        "minimum": INTEGERS[0],
        "maximum": INTEGERS[-1],
    }
    return {
        "title": "CloudEvent",
        "description": "A CloudEvent 1.0 in the JSON event format. Other members are extensions.",
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": text,
            "time": {"anyOf": [{"type": "string", "format": "date-time"}, {"enum": ["", None]}]},
            "datacontenttype": {"enum": ["application/json", None]},
            "data": {"anyOf": [reference(event.name), {"type": "null"}]},
            "partitionkey": {**extension, "maxLength": KEY_CHARS_MAX},
        },
        "propertyNames": {"pattern": "^[a-z0-9]{1,64}$"},
        "additionalProperties": extension,
    }


def _many(item: Named) -> dict[str, Any]:
    return {"type": "array", "items": reference(item.name)}


def _lines(*lines: Mapping[str, Any]) -> dict[str, Any]:
    rejected = sum(line["status"] == "rejected" for line in lines)
    return {"accepted": len(lines) - rejected, "rejected": rejected, "events": list(lines)}
