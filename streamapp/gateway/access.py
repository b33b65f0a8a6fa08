"""Who asks: the one token of the settings, which may do everything, or one of the token file."""

import base64
import binascii
import hmac

from aiohttp import web

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.scopes import Grant, Verb
from streamapp.core.tokens import TokenFile
from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.problem import ProblemError

_EVERYTHING = Grant.of("STREAMAPP_TOKEN", [Verb.ADMIN])


class Access:
    """Tells callers apart.

    Raises:
        Refuse: the token file cannot be used.
    """

    def __init__(self, config: GatewayConfig, clock: Clock = SYSTEM) -> None:
        self._token = config.token.encode()
        self._file = TokenFile(config.tokens_file, clock) if config.tokens_file else None

    @property
    def asked(self) -> bool:
        """Whether callers must show a token."""
        return bool(self._token) or (self._file is not None and self._file.asked)

    def grant(self, request: web.Request) -> Grant:
        """What the caller may do.

        Raises:
            ProblemError: 401 no token, or none that is good.
        """
        shown = _shown(request.headers.get("Authorization", ""))
        if self._token and hmac.compare_digest(shown.encode(errors="surrogateescape"), self._token):
            return _EVERYTHING
        found = self._file.find(shown) if self._file is not None else None
        if found is None:
            raise ProblemError(
                401,
                "request.token",
                "the bearer token is missing or wrong, or its time is over",
                "send Authorization: Bearer with a token of `streamapp token create`, or with the"
                " value of STREAMAPP_TOKEN",
                {"WWW-Authenticate": 'Bearer realm="streamapp"'},
            )
        return found


def _shown(authorization: str) -> str:
    """The token of ``Bearer TOKEN``, or of ``Basic`` with it as password; "" for none."""
    scheme, _, credentials = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials
        case "basic":
            return _password(credentials)
    return ""


def _password(encoded: str) -> str:
    try:
        user_and_password = base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return ""
    return user_and_password.partition(b":")[2].decode(errors="surrogateescape")
