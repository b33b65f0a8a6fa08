"""One rule: what a client calls its request or event becomes the event's id.

``ce-id``, ``webhook-id`` and the body's own ``id`` are the id as they are; an ``Idempotency-Key``
is the id of the one event of ``/ingest``, and ``KEY-LINE`` of each event of a body of many.
Nothing is remembered for that: every gateway process derives the same id from the same request,
before and after a restart, the id picks the partition, and the store's window keeps the first of a
(source, id).  Only whether a key came with another body needs a memory; each process has a small
one.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping

from multidict import CIMultiDictProxy, istr

from streamapp.core.errors import Reject
from streamapp.core.event import KEY_CHARS_MAX
from streamapp.gateway.problem import ProblemError

#: Room for ``-LINE`` behind a key, within what an id may have.
IDEMPOTENCY_KEY_CHARS_MAX = KEY_CHARS_MAX - 12
#: Keys whose bodies one process remembers; about 200 bytes each.
REMEMBERED_MAX = 16_384
NO_HEADERS: Mapping[str, str] = {}
#: Headers that name the event of a body (CloudEvents in binary mode).
_IDENTIFYING = ("ce-id", "ce-source")
_KEY = istr("Idempotency-Key")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def unquoted(value: str) -> str:
    """A header's value without the double quotes and escapes of RFC 9110, section 5.6.4."""
    match = _QUOTED.fullmatch(value)
    return _ESCAPED.sub(r"\1", match[1]) if match else value


def idempotency_key(headers: CIMultiDictProxy[str]) -> str | None:
    """The Idempotency-Key header, quoted (draft-ietf-httpapi-idempotency-key-header) or bare.

    Raises:
        Reject: ``request.idempotency_key`` twice, empty or not printable, ``event.field`` too long.
    """
    values = headers.getall(_KEY, ())
    if not values:
        return None
    key = unquoted(values[0].strip())
    if len(values) > 1 or not key or not key.isprintable():
        raise Reject(
            "request.idempotency_key",
            "Idempotency-Key is empty, comes twice or is not printable UTF-8",
            "send one UUID",
        )
    if len(key) > IDEMPOTENCY_KEY_CHARS_MAX:
        raise Reject(
            "event.field",
            f"Idempotency-Key has {len(key)} characters",
            f"use {IDEMPOTENCY_KEY_CHARS_MAX} at most",
        )
    return key


class Bodies:
    """Which body each of the last keys came with, in this process."""

    def __init__(self, keys_max: int = REMEMBERED_MAX) -> None:
        self._keys_max = keys_max
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()

    def check(
        self, source: str, key: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS
    ) -> "Claim":
        """A claim on the key; ``keep`` it when something of the body is sent.

        Args:
            source: the route; each has keys of its own.
            key: what the client calls its request.
            body: as it was sent, decompressed.
            headers: of the request; who a CloudEvent is (binary mode) is part of the request.

        Raises:
            ProblemError: 422 this process saw the key with another body.
        """
        said = "\0".join(headers.get(name, "") for name in _IDENTIFYING)
        body_digest = _digest(body + b"\0" + said.encode(errors="surrogateescape"))
        claim = Claim(self, _digest(f"{source}\0{key}".encode()), body_digest)
        self._require(claim)
        return claim

    def keep(self, claim: "Claim") -> None:
        """Remember a claim; the one kept longest ago goes when there are too many.

        Raises:
            ProblemError: 422 another body's was kept since it was checked.
        """
        self._require(claim)
        self._bodies[claim.name] = claim.body
        self._bodies.move_to_end(claim.name)
        if len(self._bodies) > self._keys_max:
            self._bodies.popitem(last=False)

    def _require(self, claim: "Claim") -> None:
        if self._bodies.get(claim.name, claim.body) != claim.body:
            raise ProblemError(
                422,
                "request.idempotency_key",
                "this Idempotency-Key came with another body before",
                "send a new key with a new body, and the same one with a repeat",
            )


class Claim:
    """One request's key and body."""

    __slots__ = ("_bodies", "body", "name")

    def __init__(self, bodies: Bodies, name: bytes, body: bytes) -> None:
        self._bodies = bodies
        self.name = name
        self.body = body

    def keep(self) -> None:
        """Events of the body are about to be sent: from now on the key is its own."""
        self._bodies.keep(self)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
