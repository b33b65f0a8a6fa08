"""What ``/v2`` takes and answers, as types: encoded, decoded, and described in OpenAPI."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from streamapp.models.formats.v2 import DATATYPES, Described, Entry

Size = Annotated[int, Meta(ge=0)]
Datatype = Annotated[str, Meta(pattern=f"^({'|'.join(DATATYPES.values())})$")]


class ServerMetadata(msgspec.Struct, frozen=True):
    """Who answers."""

    name: str
    version: str
    extensions: list[str]


class ServerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether it does."""

    live: bool | UnsetType = UNSET
    ready: bool | UnsetType = UNSET


class ModelState(msgspec.Struct, frozen=True):
    """Whether a model's files are here."""

    name: str
    ready: bool


class ModelMetadata(msgspec.Struct, frozen=True):
    """A model's signature."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Described]
    outputs: list[Described]


class IndexEntry(msgspec.Struct, frozen=True):
    """One version of one model."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class RequestedOutput(msgspec.Struct, frozen=True):
    """An output to answer with; ``binary_data`` in its parameters: as binary data."""

    name: str
    parameters: dict[str, Any] = {}


class InferenceRequest(msgspec.Struct, frozen=True):
    """Input tensors.

    ``binary_data_output`` in the parameters: outputs come as binary data where they do not say
    otherwise.
    """

    inputs: Annotated[list[Entry], Meta(min_length=1, max_length=1024)]
    outputs: Annotated[list[RequestedOutput], Meta(max_length=1024)] = []
    id: Annotated[str, Meta(max_length=256)] = ""
    parameters: dict[str, Any] = {}


class InferenceTensor(msgspec.Struct, frozen=True):
    """A tensor, its values flat or nested, row by row."""

    name: str
    datatype: Datatype
    shape: list[Size]
    data: list[Any] | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET


class InferenceInput(msgspec.Struct, frozen=True):
    """What is described of a request; the decoder is lenient where the codec says more."""

    inputs: Annotated[list[InferenceTensor], Meta(min_length=1, max_length=1024)]
    outputs: Annotated[list[RequestedOutput], Meta(max_length=1024)] = []
    id: Annotated[str, Meta(max_length=256)] = ""
    parameters: dict[str, Any] = {}


class InferenceResponse(msgspec.Struct, frozen=True):
    """Output tensors."""

    model_name: str
    model_version: str
    outputs: list[InferenceTensor]
    id: str | UnsetType = UNSET
