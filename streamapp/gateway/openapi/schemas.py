"""``/api``, described."""

from streamapp.core.exports import BATCH_SIZE_MAX, INTERVAL_MS_MAX
from streamapp.gateway.openapi.model import JSON, Content, Named, Operation, Parameter, Reply
from streamapp.gateway.openapi.native import GUARDED, OF_BODIES, PROBLEMS
from streamapp.gateway.schemas import wire
from streamapp.gateway.schemas.recent import RECENT_MAX

LEARNED, CONFIG = "Schemas", "Configuration"
_LIMIT = Parameter(
    "limit",
    "How many at most.",
    {"type": "integer", "minimum": 1, "maximum": RECENT_MAX, "default": 100},
)
_TEXT = {"type": "string", "maxLength": 2048}
_TYPE = Parameter("type", "Events of this type only.", {"type": "string"})


def operations() -> list[Operation]:
    """What ``schemas.api.routes`` has."""
    return [*_learned(), *_config()]


def _learned() -> list[Operation]:
    return [
        Operation(
            "GET",
            "/api/schemas",
            LEARNED,
            "What types of events were seen",
            {200: Reply("By any gateway of this log.", (Content(JSON, wire.LearnedTypes),))},
            errors=(*GUARDED, 429, 503),
            problem=PROBLEMS,
        ),
        Operation(
            "GET",
            "/api/schemas/{name}",
            LEARNED,
            "What events of a type looked like",
            {200: Reply("All fields that any had.", (Content(JSON, wire.LearnedSchema),))},
            errors=(400, *GUARDED, 404, 429, 503),
            problem=PROBLEMS,
        ),
        Operation(
            "GET",
            "/api/events",
            LEARNED,
            "The newest events",
            {200: Reply("Of this gateway, newest first.", (Content(JSON, wire.RecentEvents),))},
            errors=(400, *GUARDED, 429, 503),
            problem=PROBLEMS,
            parameters=(_LIMIT, _TYPE),
        ),
    ]


def _config() -> list[Operation]:
    asked = Named("ExportChangeAsked", _change())
    return [
        Operation(
            "GET",
            "/api/config",
            CONFIG,
            "How the export `default` is configured",
            {
                200: Reply(
                    "As declared, as changed, and the sum.", (Content(JSON, wire.ExportConfig),)
                )
            },
            errors=(*GUARDED, 404, 429, 503),
            problem=PROBLEMS,
        ),
        Operation(
            "POST",
            "/api/config",
            CONFIG,
            "Change how the export `default` is configured",
            {200: Reply("The change is on the log.", (Content(JSON, wire.ExportChanged),))},
            about="`webhook_url` must be one that the project file allows.",
            errors=(*OF_BODIES, *GUARDED, 404),
            problem=PROBLEMS,
            bodies=(Content(JSON, asked, {"batch_size": 50, "interval_ms": 2000}),),
        ),
    ]


def _change() -> dict[str, object]:
    off = {"type": ["string", "null"], "maxLength": 0}
    return {
        "title": "ExportChangeAsked",
        "description": "What to change; null is as declared, what is not there stays as it is.",
        "type": "object",
        "properties": {
            "webhook_url": {"anyOf": [{**_TEXT, "format": "uri", "pattern": "^https?://"}, off]},
            "ontology_iri": {"anyOf": [{**_TEXT, "format": "iri"}, off]},
            "batch_size": {"type": ["integer", "null"], "minimum": 1, "maximum": BATCH_SIZE_MAX},
            "interval_ms": {
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": INTERVAL_MS_MAX,
            },
        },
        "minProperties": 1,
        "additionalProperties": False,
    }
