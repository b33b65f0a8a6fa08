"""Who may do what: three tokens, and what is allowed where none is set."""

import base64
import binascii
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from pyarrow import flight

from streamapp.core.errors import Refuse
from streamapp.core.tokens import TokenFile
from streamapp.flight import wire
from streamapp.flight.border import flight_error

#: The middleware's name in a call's context.
KEY = "access"


class Role(IntEnum):
    """What a caller may do; each may what those before it may."""

    READ = 1
    PRODUCE = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What callers show.

    ``token`` reads and produces, as it does at the gateway; ``read`` only reads; ``admin`` does
    everything.  Without an ``admin`` token, who may produce may do everything from this machine.
    ``file`` has more of them, with scopes: ``read`` reads, with ``produce:*`` beside it produces,
    and ``admin`` does everything.  Where there is none, nobody is asked.
    """

    token: str = ""
    read: str = ""
    admin: str = ""
    file: TokenFile | None = None

    def __bool__(self) -> bool:
        return bool(self.token or self.read or self.admin) or (
            self.file is not None and self.file.asked
        )

    def role_in_file(self, shown: bytes) -> Role | None:
        """The role of a token of the file; None when it has no such token.

        Raises:
            Refuse: ``flight.not_allowed`` it is good, and for other things.
        """
        found = self.file.find(shown.decode(errors="surrogateescape")) if self.file else None
        if found is None:
            return None
        if found.admin:
            return Role.ADMIN
        if not found.read:
            raise Refuse(
                "flight.not_allowed",
                "the token lacks scope read",
                "use one that has it: streamapp token create NAME --scope read",
            )
        return Role.PRODUCE if "produce:*" in found.scopes else Role.READ

    def roles(self) -> list[tuple[bytes, Role]]:
        """Each token that is set, and its role.

        Raises:
            Refuse: two are the same, or gRPC sends no such characters in a header.
        """
        named = ((self.token, Role.PRODUCE), (self.read, Role.READ), (self.admin, Role.ADMIN))
        given = [(wire.bearer(token), role) for token, role in named if token]
        if len({header for header, _ in given}) < len(given):
            raise Refuse(
                "flight.token",
                "two of token, flight_read_token and flight_admin_token are the same",
                "give each a value of its own, such as `openssl rand -hex 32` gives",
            )
        return given


class Caller(flight.ServerMiddleware):  # type: ignore[misc]  # pyarrow has no types
    """One call's role by its token; None where no token is asked for.

    ``by_scope``: the token says itself what it may do, and being on this machine adds nothing.
    """

    def __init__(self, role: Role | None, reply: str, *, by_scope: bool = False) -> None:
        self.role = role
        self.by_scope = by_scope
        self._reply = reply

    def sending_headers(self) -> dict[str, str]:
        """After a login by name and password: the token to use from now on."""
        return {"authorization": self._reply} if self._reply else {}


class CallerFactory(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Refuses calls without a token, as ``Bearer TOKEN`` or ``Basic`` with it as password."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._roles = tokens.roles()

    def start_call(self, info: Any, headers: dict[str, list[str | bytes]]) -> Caller:
        """Every token is compared, each in constant time."""
        del info
        given = _authorization(headers)
        scheme, _, rest = given.partition(b" ")
        basic = scheme.lower() == b"basic"
        value = _password(rest) if basic else rest if scheme.lower() == b"bearer" else b""
        shown = b"Bearer " + value
        reply = shown.decode("ascii", "replace") if basic else ""
        if not self._tokens:
            return Caller(None, reply)
        found = [role for header, role in self._roles if hmac.compare_digest(shown, header)]
        if not found:
            try:
                role = self._tokens.role_in_file(value)
            except Refuse as error:
                raise flight_error(error) from None
            if role is not None:
                return Caller(role, reply, by_scope=True)
            raise flight_error(
                Refuse(
                    "flight.token",
                    "the token is missing or wrong",
                    "send `authorization: Bearer TOKEN`, or the token as password",
                )
            )
        return Caller(found[0], reply)


class Handshake(flight.ServerAuthHandler):  # type: ignore[misc]
    """Lets Flight answer a handshake; :class:`CallerFactory` has checked it already."""

    def authenticate(self, outgoing: Any, incoming: Any) -> None:
        del outgoing, incoming

    def is_valid(self, token: bytes) -> bytes:
        del token
        return b""


def require(context: Any, role: Role, *, admin_anywhere: bool) -> None:
    """Let a call pass, or say what it lacks.

    Args:
        context: the call's.
        role: what the call takes.
        admin_anywhere: there is an admin token; otherwise admin calls come from this machine.

    Raises:
        Refuse: ``flight.not_allowed``.
    """
    caller = context.get_middleware(KEY)
    has = caller.role or Role.PRODUCE
    by_place = has == Role.PRODUCE and not (admin_anywhere or caller.by_scope)
    if by_place and is_local(context.peer()):
        has = Role.ADMIN
    if has >= role:
        return
    if role == Role.ADMIN:
        said = "use flight_admin_token (STREAMAPP_FLIGHT_ADMIN_TOKEN)"
        fix = said if admin_anywhere else "set flight_admin_token in the store"
        raise Refuse("flight.not_allowed", "this takes the store's admin token", fix)
    raise Refuse(
        "flight.not_allowed",
        "the read token reads, it does not produce",
        "use the store's token or its admin token",
    )


def is_local(peer: str) -> bool:
    """Whether gRPC's name of a peer (``ipv4:127.0.0.1:5``, ``ipv6:[::1]:5``) is this machine."""
    found = re.fullmatch(r"ipv[46]:(?:\[|%5B)?([0-9a-fA-F.:]+?)(?:%25\w+)?(?:\]|%5D)?:\d+", peer)
    if peer.startswith("unix:"):
        return True
    return found is not None and is_loopback(found[1])


def is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return bool((mapped or parsed).is_loopback)


def _authorization(headers: Mapping[str, list[str | bytes]]) -> bytes:
    for name, values in headers.items():
        if name.lower() == "authorization" and values:
            return values[0].encode() if isinstance(values[0], str) else values[0]
    return b""


def _password(encoded: bytes) -> bytes:
    bare = encoded.rstrip(b"=")  # Go's clients send it without padding
    try:
        return base64.b64decode(bare + b"=" * (-len(bare) % 4), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
