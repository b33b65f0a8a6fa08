"""The services and the runs of workflows, described."""

from streamapp.gateway.arrow import MEDIA
from streamapp.gateway.openapi.model import JSON, Content, Operation, Parameter, Reply
from streamapp.gateway.openapi.native import GUARDED, OF_BODIES, PROBLEMS
from streamapp.gateway.services import RUN, RUNS, SERVICES, wire

TAG = "Services"
_ARROW = Content(MEDIA, {"type": "string", "format": "binary"})
_CONFIG = Parameter(
    "config",
    "The operation's config as a JSON object, beside a body in Arrow.",
    {"type": "string"},
)
_EXAMPLE = {"rows": [{"text": "What a fine day."}], "config": {"analyze_sentiment": True}}
_LIVE = (*GUARDED, 404)


def operations() -> list[Operation]:
    """What ``services.routes`` has."""
    return [*_calls(), *_runs()]


def _calls() -> list[Operation]:
    return [
        Operation(
            "GET",
            SERVICES,
            TAG,
            "Operations there are",
            {200: Reply("All of them.", (Content(JSON, list[wire.OperationEntry]),))},
            errors=GUARDED,
            problem=PROBLEMS,
        ),
        Operation(
            "POST",
            f"{SERVICES}/{{service}}/{{operation}}",
            TAG,
            "Run an operation on rows",
            {
                200: Reply(
                    "Its result; Arrow for who sent it or accepts it.",
                    (Content(JSON, wire.CallAnswer), _ARROW),
                    {"Streamapp-Aside": "Rows that were set aside, of an answer in Arrow."},
                )
            },
            about="`inputs` are for operations of several inputs, `sources` stand in for sources "
            "that the project declares; the declared ones are for tokens of scope `admin`.",
            errors=(*OF_BODIES, *_LIVE, 403, 504),
            problem=PROBLEMS,
            bodies=(Content(JSON, wire.CallAsked, _EXAMPLE), _ARROW),
            parameters=(_CONFIG,),
        ),
    ]


def _runs() -> list[Operation]:
    run = Content(JSON, wire.Run)
    return [
        Operation(
            "GET",
            "/v1/workflows",
            TAG,
            "Workflows of the project",
            {200: Reply("All of them.", (Content(JSON, list[wire.WorkflowEntry]),))},
            errors=GUARDED,
            problem=PROBLEMS,
        ),
        Operation(
            "POST",
            RUNS,
            TAG,
            "Start a run",
            {202: Reply("It is queued.", (run,), {"Location": "Where it is."})},
            errors=(*OF_BODIES, *_LIVE),
            problem=PROBLEMS,
            bodies=(Content(JSON, wire.RunAsked, {"params": {}}),),
            body_required=False,
        ),
        Operation(
            "GET",
            RUNS,
            TAG,
            "Runs of a workflow, the newest first",
            {200: Reply("Those that are remembered.", (Content(JSON, list[wire.Run]),))},
            errors=_LIVE,
            problem=PROBLEMS,
        ),
        Operation(
            "GET",
            RUN,
            TAG,
            "A run, and what it wrote",
            {200: Reply("Where it stands.", (run,))},
            errors=_LIVE,
            problem=PROBLEMS,
        ),
        Operation(
            "DELETE",
            RUN,
            TAG,
            "Cancel a run",
            {200: Reply("Where it stands now.", (run,))},
            errors=_LIVE,
            problem=PROBLEMS,
        ),
        Operation(
            "GET",
            f"{RUN}/outputs/{{output}}",
            TAG,
            "A file that a run wrote",
            {200: Reply("Its bytes.", (Content("*/*", {"type": "string", "format": "binary"}),))},
            errors=_LIVE,
            problem=PROBLEMS,
        ),
    ]
