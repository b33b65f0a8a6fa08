"""``/v2``, described."""

from streamapp.gateway.inference import wire
from streamapp.gateway.openapi.model import JSON, Content, Operation, Parameter, Reply
from streamapp.gateway.openapi.native import GUARDED, OF_BODIES, PROBLEMS
from streamapp.models.formats.v2 import BINARY, JSON_LENGTH

TAG = "Inference"
_MODELS = ("/v2/models/{model}/versions/{version}", "/v2/models/{model}")
_LENGTH = Parameter(
    JSON_LENGTH,
    "How many bytes of the body are JSON; binary tensors follow it.",
    {"type": "string", "pattern": "^[0-9]{1,9}$"},
    "header",
)
_REQUEST = {
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}],
}
_TENSORS = Content(BINARY, {"type": "string", "format": "binary"})


def operations() -> list[Operation]:
    """What ``inference.routes`` has."""
    return [*_server(), *(each for path in _MODELS for each in _model(path))]


def _server() -> list[Operation]:
    state = Content(JSON, wire.ServerState)
    return [
        Operation(
            "GET",
            "/v2",
            TAG,
            "Who answers",
            {200: Reply("Its name and extensions.", (Content(JSON, wire.ServerMetadata),))},
        ),
        Operation(
            "GET", "/v2/health/live", TAG, "Whether it lives", {200: Reply("Yes.", (state,))}
        ),
        Operation(
            "GET",
            "/v2/health/ready",
            TAG,
            "Whether it takes requests",
            {200: Reply("Yes.", (state,)), 503: Reply("No: it stops.", (state,))},
        ),
        Operation(
            "POST",
            "/v2/repository/index",
            TAG,
            "List models",
            {200: Reply("Every version of every model.", (Content(JSON, list[wire.IndexEntry]),))},
            errors=(*OF_BODIES, *GUARDED, 404),
            problem=PROBLEMS,
            bodies=(Content(JSON, {"type": "object"}),),
            body_required=False,
        ),
    ]


def _model(path: str) -> list[Operation]:
    named = " of a version" if "version" in path else ""
    state = Content(JSON, wire.ModelState)
    return [
        Operation(
            "GET",
            path,
            TAG,
            f"Get the signature{named}",
            {200: Reply("Inputs and outputs.", (Content(JSON, wire.ModelMetadata),))},
            errors=(*GUARDED, 404),
            problem=PROBLEMS,
        ),
        Operation(
            "GET",
            f"{path}/ready",
            TAG,
            f"Whether the files{named} are here",
            {200: Reply("They are.", (state,)), 503: Reply("They are not.", (state,))},
            errors=(*GUARDED, 404),
            problem=PROBLEMS,
        ),
        Operation(
            "POST",
            f"{path}/infer",
            TAG,
            f"Run a model{named and ': one version'}",
            {200: Reply("Its outputs.", (Content(JSON, wire.InferenceResponse), _TENSORS))},
            about="Tensors are JSON, or binary data behind the JSON (Triton's extension "
            "`binary_tensor_data`). Requests of several clients are run as one call.",
            errors=(*OF_BODIES, *GUARDED, 404, 500),
            problem=PROBLEMS,
            bodies=(Content(JSON, wire.InferenceInput, _REQUEST), _TENSORS),
            parameters=(_LENGTH,),
        ),
    ]
