"""What each route takes of who calls it, and how a handler asks for more."""

from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import hdrs, web

from streamapp.core.scopes import Grant, Need, Verb
from streamapp.gateway.problem import ProblemError
from streamapp.topics.catalogue import RAW

#: Whom the token of a request belongs to; not there when nobody was asked for one.
GRANT = web.RequestKey("grant", Grant)


class Rule(NamedTuple):
    """What a route takes; ``topic`` may be ``{topic}``, which the path has."""

    verb: Verb
    topic: str = ""

    @property
    def scope(self) -> str:
        """The scope as a reader is told it: ``produce:{topic}``."""
        return Need(*self).scope

    def need(self, request: web.Request) -> Need:
        """What this request takes."""
        of_path = self.topic == _TOPIC
        return Need(self.verb, request.match_info["topic"] if of_path else self.topic)


_TOPIC = "{topic}"
_OPEN, _ANY, _READ, _ADMIN = (Rule(v) for v in (Verb.OPEN, Verb.ANY, Verb.READ, Verb.ADMIN))
_PRODUCE_RAW, _PRODUCE = Rule(Verb.PRODUCE, RAW), Rule(Verb.PRODUCE, _TOPIC)
#: Which topics is in the body, or known to the instance: ``consumers`` asks for them.
_CONSUME_SOME, _CONSUME, _DESCRIBE = (
    Rule(Verb.CONSUME),
    Rule(Verb.CONSUME, _TOPIC),
    Rule(Verb.DESCRIBE, _TOPIC),
)
_GET, _POST, _DELETE = hdrs.METH_GET, hdrs.METH_POST, hdrs.METH_DELETE
_CLUSTER, _INSTANCE = "/v3/clusters/{cluster}", "/consumers/{group}/instances/{instance}"

_RUNS = "/v1/workflows/{workflow}/runs"

#: By path and method; HEAD is GET.  What is not here takes ``admin``.
RULES: Mapping[str, Mapping[str, Rule]] = {
    "/ingest": {_POST: _PRODUCE_RAW},
    "/events": {_POST: _PRODUCE_RAW},
    "/v1/events": {_POST: _PRODUCE_RAW},
    "/v1/events/{topic}": {_POST: _PRODUCE},
    "/v1/attachments": {_POST: _PRODUCE_RAW},
    "/v1/attachments/{sha256}": {_GET: _READ},
    # The signature says who it is.
    "/webhooks/{source}": {_POST: _OPEN},
    "/healthz": {_GET: _OPEN},
    "/readyz": {_GET: _OPEN},
    "/metrics": {_GET: _OPEN},
    "/openapi.json": {_GET: _OPEN},
    "/docs": {_GET: _OPEN},
    "/api/schemas": {_GET: _READ},
    "/api/schemas/{name}": {_GET: _READ},
    "/api/events": {_GET: _READ},
    # An export's address may have a secret in it.
    "/api/config": {_GET: _ADMIN, _POST: _ADMIN},
    # It costs tokens, and may send what it made.
    "/api/chat": {_POST: _PRODUCE_RAW},
    "/v2": {_GET: _OPEN},
    "/v2/health/live": {_GET: _OPEN},
    "/v2/health/ready": {_GET: _OPEN},
    "/v2/repository/index": {_POST: _READ},
    **{
        f"/v2/models/{{model}}{version}{what}": {method: _READ}
        for version in ("", "/versions/{version}")
        for what, method in (("", _GET), ("/ready", _GET), ("/infer", _POST))
    },
    # Sources that the project declares are for who may do everything.
    "/v1/services": {_GET: _READ},
    "/v1/services/{service}/{operation}": {_POST: _READ},
    "/v1/workflows": {_GET: _READ},
    _RUNS: {_GET: _READ, _POST: _ADMIN},
    f"{_RUNS}/{{run}}": {_GET: _READ, _DELETE: _ADMIN},
    f"{_RUNS}/{{run}}/outputs/{{output}}": {_GET: _READ},
    "/topics": {_GET: _READ},
    "/topics/{topic}": {_GET: _DESCRIBE, _POST: _PRODUCE},
    "/topics/{topic}/partitions": {_GET: _DESCRIBE},
    "/topics/{topic}/partitions/{partition}": {_GET: _DESCRIBE, _POST: _PRODUCE},
    "/topics/{topic}/partitions/{partition}/offsets": {_GET: _DESCRIBE},
    "/brokers": {_GET: _ANY},
    # Clients of v3 learn the cluster's id here before they can do anything.
    "/v3/clusters": {_GET: _ANY},
    _CLUSTER: {_GET: _ANY},
    f"{_CLUSTER}/topics": {_GET: _READ},
    f"{_CLUSTER}/topics/{{topic}}": {_GET: _DESCRIBE},
    f"{_CLUSTER}/topics/{{topic}}/partitions": {_GET: _DESCRIBE},
    f"{_CLUSTER}/topics/{{topic}}/partitions/{{partition}}": {_GET: _DESCRIBE},
    f"{_CLUSTER}/topics/{{topic}}/records": {_POST: _PRODUCE},
    f"{_CLUSTER}/topics/{{topic}}/records:batch": {_POST: _PRODUCE},
    "/consumers/{group}": {_POST: _CONSUME_SOME},
    _INSTANCE: {_DELETE: _CONSUME_SOME},
    f"{_INSTANCE}/subscription": {
        _POST: _CONSUME_SOME,
        _GET: _CONSUME_SOME,
        _DELETE: _CONSUME_SOME,
    },
    f"{_INSTANCE}/assignments": {_POST: _CONSUME_SOME, _GET: _CONSUME_SOME},
    f"{_INSTANCE}/records": {_GET: _CONSUME_SOME},
    f"{_INSTANCE}/topics/{{topic}}": {_GET: _CONSUME},
    f"{_INSTANCE}/offsets": {_POST: _CONSUME_SOME, _GET: _CONSUME_SOME},
    f"{_INSTANCE}/positions": {_POST: _CONSUME_SOME},
    f"{_INSTANCE}/positions/beginning": {_POST: _CONSUME_SOME},
    f"{_INSTANCE}/positions/end": {_POST: _CONSUME_SOME},
}


def rule(method: str, path: str) -> Rule:
    """What a route takes; ``path`` as the router writes it."""
    if method == hdrs.METH_OPTIONS:  # who asks what is allowed has no token yet
        return _OPEN
    asked = _GET if method == hdrs.METH_HEAD else method
    return RULES.get(path, {}).get(asked, _ADMIN)


def allowed(request: web.Request, need: Need) -> bool:
    """Whether who asks may do this; everybody may where nobody is asked for a token."""
    grant = request.get(GRANT)
    return grant is None or grant.may(need)


def require(request: web.Request, verb: Verb, topic: str = "") -> None:
    """Let a request pass, or say which scope it lacks.

    Raises:
        ProblemError: 403 ``request.scope``.
    """
    need = Need(verb, topic)
    if not allowed(request, need):
        raise lacking(need)


def lacking(need: Need) -> ProblemError:
    """403: the token is good, and not for this (RFC 6750, section 3.1)."""
    scope = need.scope[:300]
    return ProblemError(
        403,
        "request.scope",
        f"the token lacks scope {scope}",
        f"use one that has it: streamapp token create NAME --scope '{scope}'",
        {"WWW-Authenticate": f'Bearer realm="streamapp", error="insufficient_scope", '
                             f'scope="{_quotable(scope)}"'},
    )  # fmt: skip


def _quotable(scope: str) -> str:
    """A topic of a path may have any character; a quoted scope has not."""
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in scope)
