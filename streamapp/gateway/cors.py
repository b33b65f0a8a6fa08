"""Pages of named origins may use the gateway (https://fetch.spec.whatwg.org/#http-cors-protocol).

Off unless origins are named.  ``*`` is not known, and neither are cookies: a page shows a token.
"""

import re
from collections.abc import Mapping

from aiohttp import hdrs, web

from streamapp.core.errors import Refuse
from streamapp.gateway.problem import SERVER

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")
_METHODS = "GET, POST, DELETE"
_EXPOSED = "RateLimit, RateLimit-Policy, Retry-After, X-Streamapp-Partial"
_KEPT_S = 600


def origins_of(text: str) -> frozenset[str]:
    """The origins of a list with commas.

    Raises:
        Refuse: ``cors.origin`` one is none.
    """
    found = {part.strip().lower() for part in text.split(",")} - {""}
    for origin in sorted(found):
        if not _ORIGIN.fullmatch(origin):
            raise Refuse(
                "cors.origin",
                f"cors_origins: {origin[:120]!r} is no origin",
                "write scheme, host and port only, such as https://app.example:8443",
            )
    return frozenset(found)


class Cors:
    """The answers to browsers."""

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def __bool__(self) -> bool:
        return bool(self._origins)

    def allows(self, request: web.Request) -> bool:
        """Whether the request comes from a page of a named origin."""
        return request.headers.get(hdrs.ORIGIN, "").lower() in self._origins

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a browser that asks what its page may send; None to anybody else."""
        asked = request.method == hdrs.METH_OPTIONS and (
            hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
        )
        if not asked or not self.allows(request):
            return None
        wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "")
        headers = {
            **SERVER,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(_KEPT_S),
        }
        if wanted.isascii() and wanted.isprintable() and wanted:
            headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
        return web.Response(status=204, headers=headers)

    def headers(self, request: web.Request) -> Mapping[str, str]:
        """What every answer has beside its own headers."""
        vary: dict[str, str] = {hdrs.VARY: hdrs.ORIGIN}
        if not self.allows(request):
            return vary
        return {
            **vary,
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: request.headers[hdrs.ORIGIN],
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED,
        }
