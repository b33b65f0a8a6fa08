"""Who sent a webhook: signatures over the body's bytes as they came, in three dialects.

Every secret is tried against every signature, in constant time, so that neither the answer nor how
long it takes says which one was close.  A signature that is old is no proof any more: what has a
time must be within five minutes of ours.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence

from multidict import CIMultiDictProxy

from streamapp.core.event import KEY_CHARS_MAX
from streamapp.gateway.problem import ProblemError

TOLERANCE_S = 300
#: A header has room for more; nobody rotates through as many.
_SIGNATURES_MAX = 16
#: Of a Unix time in seconds; these are good until the year 33,658.
_TIME_DIGITS_MAX = 12
#: Standard Webhooks' own names, and those of the service that they came from.
_STANDARD = ("webhook", "svix")
Headers = CIMultiDictProxy[str]
#: (headers, body, keys, seconds since 1970) to the delivery's id, "" where the body has it.
Verify = Callable[[Headers, bytes, Sequence[bytes], float], str]


def standard(headers: Headers, body: bytes, keys: Sequence[bytes], now_s: float) -> str:
    """Standard Webhooks 1.0: ``webhook-id``, ``-timestamp``, ``-signature: v1,BASE64 ...``.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    ``v1a`` (ed25519) signatures beside it are passed over.

    Raises:
        ProblemError: 400 a header is missing or makes no sense, 401 no signature fits, or too old.
    """
    prefix = next((name for name in _STANDARD if f"{name}-id" in headers), _STANDARD[0])
    identity = _identity(headers, f"{prefix}-id")
    sent = _one(headers, f"{prefix}-timestamp")
    signatures = [
        text
        for version, _, text in (
            part.partition(",") for part in _one(headers, f"{prefix}-signature").split(" ")
        )
        if version == "v1"
    ]
    signed = f"{identity}.{sent}.".encode(errors="surrogateescape") + body
    _check([base64.b64encode(_hmac(key, signed)) for key in keys], signatures)
    _check_time(sent, now_s)
    return identity


def github(headers: Headers, body: bytes, keys: Sequence[bytes], now_s: float) -> str:  # noqa: ARG001  # it signs no time
    """GitHub: ``X-Hub-Signature-256: sha256=HEX`` over the body, ``X-GitHub-Delivery``.

    https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    The delivery's id and its time are not signed: who has one delivery can send it again under
    another id.

    Raises:
        ProblemError: as :func:`standard`.
    """
    identity = _identity(headers, "X-GitHub-Delivery")
    scheme, _, signature = _one(headers, "X-Hub-Signature-256").partition("=")
    _check(
        [_hmac(key, body).hex().encode() for key in keys], [signature] if scheme == "sha256" else []
    )
    return identity


def stripe(headers: Headers, body: bytes, keys: Sequence[bytes], now_s: float) -> str:
    """Stripe: ``Stripe-Signature: t=SECONDS,v1=HEX,...`` over ``t.body``; the body has the id.

    https://docs.stripe.com/webhooks#verify-manually

    Raises:
        ProblemError: as :func:`standard`.
    """
    pairs = [part.strip().partition("=") for part in _one(headers, "Stripe-Signature").split(",")]
    sent = next((value for name, _, value in pairs if name == "t"), "")
    signed = f"{sent}.".encode(errors="surrogateescape") + body
    signatures = [value for name, _, value in pairs if name == "v1"]
    _check([_hmac(key, signed).hex().encode() for key in keys], signatures)
    _check_time(sent, now_s)
    return ""


def plain_key(secret: str) -> bytes:
    """The key of a secret that is used as it is written.

    Raises:
        ValueError: it is empty.
    """
    if not secret:
        raise ValueError("it is empty")
    return secret.encode()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.sha256)


def _check(expected: Sequence[bytes], given: Sequence[str]) -> None:
    fits = [
        hmac.compare_digest(one, text.encode(errors="surrogateescape"))
        for text in given[:_SIGNATURES_MAX]
        for one in expected
    ]
    if not any(fits):
        raise ProblemError(
            401,
            "webhook.signature",
            "no signature of this delivery is by a secret that is known here",
            "sign the body's bytes as they are sent, with the secret of this source",
        )


def _check_time(sent: str, now_s: float) -> None:
    """The time is among what was signed, so only who knows a secret learns about it."""
    if not (sent.isascii() and sent.isdecimal() and len(sent) <= _TIME_DIGITS_MAX):
        raise ProblemError(
            400, "webhook.header", "the delivery's time is no Unix time in seconds", "send digits"
        )
    if abs(now_s - int(sent)) > TOLERANCE_S:
        raise ProblemError(
            401,
            "webhook.timestamp",
            f"the delivery was signed more than {TOLERANCE_S} s from now, by our clock",
            "sign every attempt anew, and check both clocks",
        )


def _identity(headers: Headers, name: str) -> str:
    value = _one(headers, name)
    if len(value) > KEY_CHARS_MAX or not value.isprintable():
        raise ProblemError(
            400,
            "webhook.header",
            f"{name} is longer than {KEY_CHARS_MAX} characters or not printable",
            "send a UUID or its like",
        )
    return value


def _one(headers: Headers, name: str) -> str:
    values = headers.getall(name, ())
    if len(values) != 1 or not values[0].strip():
        raise ProblemError(
            400, "webhook.header", f"{name} is missing, empty or there twice", "send it once"
        )
    return values[0].strip()
