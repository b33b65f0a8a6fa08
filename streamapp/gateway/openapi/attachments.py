"""Attachments, described."""

from streamapp.gateway.attachments import Reference
from streamapp.gateway.openapi.model import JSON, Content, Operation, Parameter, Reply
from streamapp.gateway.openapi.native import EVENTS, GUARDED, OF_BODIES, PROBLEMS
from streamapp.gateway.uploads import PATH

_BYTES = Content("application/octet-stream", {"type": "string", "format": "binary", "minLength": 1})
_MATCH = Parameter(
    "If-None-Match",
    "The ETag of what the client has: it is the content's sha256 in quotes.",
    {"type": "string", "pattern": "^[ -~]*[!-~]$"},
    "header",
)


def operations() -> list[Operation]:
    """What ``uploads.routes`` has."""
    kept = Reply(
        "It is kept; write this into an event's `attachments`.",
        (Content(JSON, Reference),),
        {"Location": "Where it is."},
    )
    return [
        Operation(
            "POST",
            PATH,
            EVENTS,
            "Keep an attachment",
            {201: kept},
            about="Content of any media type; the same content is kept once.",
            errors=(*OF_BODIES, *GUARDED, 507),
            problem=PROBLEMS,
            bodies=(_BYTES,),
        ),
        Operation(
            "GET",
            f"{PATH}/{{sha256}}",
            EVENTS,
            "Get an attachment",
            {
                200: Reply("Its bytes.", (_BYTES,), {"ETag": "Its sha256, in quotes."}),
                304: Reply("The client has it."),
            },
            errors=(*GUARDED, 404, 415, 429, 500, 503),
            problem=PROBLEMS,
            parameters=(_MATCH,),
        ),
    ]
