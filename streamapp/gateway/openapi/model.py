"""The words in which routes are described, and the OpenAPI 3.1 document made of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from streamapp.core.scopes import Verb
from streamapp.gateway.scopes import rule

OPENAPI = "3.1.0"
JSON = "application/json"
PROBLEM = "application/problem+json"
_LATER = frozenset({429, 503})
_REF = "#/components/schemas/{name}"
_IN_PATH = re.compile(r"{(\w+)}")

Schema = Mapping[str, Any]
#: A type of ours, a JSON Schema as it stands, Named or not, or a tuple of those: any of them.
Shape = Any


@dataclass(frozen=True, slots=True)
class Named:
    """A JSON Schema that is a component."""

    name: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request may say beside its body."""

    name: str
    about: str
    schema: Schema
    place: Literal["path", "query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """A body in one media type."""

    media: str
    shape: Shape
    example: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``headers`` are those that say something, with what they say."""

    about: str
    content: Sequence[Content] = ()
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    ``errors`` are statuses whose body is the protocol's usual one, which ``problem`` is.
    """

    method: str
    path: str
    tag: str
    summary: str
    replies: Mapping[int, Reply]
    about: str = ""
    errors: Sequence[int] = ()
    problem: Content | None = None
    bodies: Sequence[Content] = ()
    body_required: bool = True
    parameters: Sequence[Parameter] = ()

    @property
    def name(self) -> str:
        """The operationId: stable as long as method and path are."""
        words = re.findall(r"\w+", self.path)
        return "_".join((self.method.lower(), *words)).replace(".", "_")

    def path_parameters(self) -> list[str]:
        """Names in the path, in their order."""
        return _IN_PATH.findall(self.path)


def document(
    operations: Iterable[Operation],
    *,
    info: Schema,
    path_parameters: Mapping[str, Parameter],
    tags: Sequence[Schema],
    guarded: bool,
) -> dict[str, Any]:
    """The whole document.

    Args:
        operations: all there are.
        info: of the document.
        path_parameters: by name, or by operation and name (``GET /topics/{topic}:topic``).
        tags: in the order in which a reader wants them.
        guarded: whether a token is asked for.
    """
    operations = list(operations)
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    shared: dict[str, Any] = {}
    for operation in operations:
        described = _described(operation, schemas, path_parameters, shared)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    components: dict[str, Any] = {"schemas": schemas.components, "responses": shared}
    if guarded:
        about = "A token of `streamapp token create`, or the value of STREAMAPP_TOKEN."
        scheme = {"type": "http", "scheme": "bearer", "description": about}
        components["securitySchemes"] = {"token": scheme}
    else:
        for path in paths.values():
            for described in path.values():
                described.pop("security", None)
    return {
        "openapi": OPENAPI,
        "info": dict(info),
        "servers": [{"url": "/"}],
        "tags": list(tags),
        "paths": paths,
        "components": components,
    }


class _Schemas:
    """JSON Schemas of all shapes; what has a name is a component."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        shapes = [
            shape
            for operation in operations
            for content in _contents(operation)
            for shape in (content.shape if isinstance(content.shape, tuple) else (content.shape,))
        ]
        types = {repr(each): each for each in shapes if not isinstance(each, Mapping | Named)}
        found, self.components = msgspec.json.schema_components(types.values(), ref_template=_REF)
        self._found = dict(zip(types, found, strict=True))
        self.components |= {each.name: each.schema for each in shapes if isinstance(each, Named)}

    def of(self, shape: Shape) -> Schema:
        """A shape's schema, or where it is."""
        if isinstance(shape, Named):
            return reference(shape.name)
        if isinstance(shape, tuple):
            return {"anyOf": [self.of(each) for each in shape]}
        return shape if isinstance(shape, Mapping) else self._found[repr(shape)]


def reference(name: str) -> dict[str, str]:
    """Where the component of a name is."""
    return {"$ref": _REF.format(name=name)}


def _contents(operation: Operation) -> Iterable[Content]:
    yield from operation.bodies
    for reply in operation.replies.values():
        yield from reply.content
    if operation.problem is not None:
        yield operation.problem


def _described(
    operation: Operation,
    schemas: _Schemas,
    path_parameters: Mapping[str, Parameter],
    shared: dict[str, Any],
) -> dict[str, Any]:
    of_path = (
        path_parameters.get(f"{operation.method} {operation.path}:{name}") or path_parameters[name]
        for name in operation.path_parameters()
    )
    found: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.about:
        found["description"] = operation.about
    if parameters := [_parameter(each) for each in (*of_path, *operation.parameters)]:
        found["parameters"] = parameters
    if operation.bodies:
        content = _content(operation.bodies, schemas)
        found["requestBody"] = {"required": operation.body_required, "content": content}
    found["responses"] = _replies(operation, schemas, shared)
    asked = rule(operation.method, operation.path)
    if asked.verb is not Verb.OPEN:
        found["security"] = [{"token": [] if asked.verb is Verb.ANY else [asked.scope]}]
    return found


def _replies(operation: Operation, schemas: _Schemas, shared: dict[str, Any]) -> dict[str, Any]:
    """Answers by status; errors that many operations share are components."""
    found = {str(status): _reply(reply, schemas) for status, reply in operation.replies.items()}
    problem = operation.problem
    if problem is None:
        return found
    for status in sorted(set(operation.errors)):
        told = _reply(_error(status, problem), schemas)
        known = found.get(str(status))
        if known is not None:
            found[str(status)] = known | {"content": known.get("content", {}) | told["content"]}
            continue
        name = f"{problem.shape.__name__}{status}"
        shared[name] = told
        found[str(status)] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(found.items()))


def _error(status: int, problem: Content) -> Reply:
    headers = {"Retry-After": "Seconds after which to send it again."}
    about = f"{HTTPStatus(status).phrase}."
    return Reply(about, (problem,), headers if status in _LATER else None)


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {"description": reply.about}
    if reply.headers:
        found["headers"] = {
            name: {"description": about, "schema": {"type": "string"}}
            for name, about in reply.headers.items()
        }
    if reply.content:
        found["content"] = _content(reply.content, schemas)
    return found


def _content(contents: Iterable[Content], schemas: _Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for content in contents:
        found[content.media] = {"schema": schemas.of(content.shape)}
        if content.example is not None:
            found[content.media]["example"] = content.example
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required or parameter.place == "path",
        "description": parameter.about,
        "schema": parameter.schema,
    }
