"""Standard Webhooks 1.0: what a delivery is signed with.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key in ``whsec_BASE64``.

    Raises:
        ValueError: it is not base64, or has nothing in it.
    """
    coded = secret.removeprefix(_PREFIX)
    try:
        key = binascii.a2b_base64(coded + "=" * (-len(coded) % 4), strict_mode=True)
    except binascii.Error:
        key = b""
    if not key:
        raise ValueError("it is not whsec_ and base64")
    return key


def signed_headers(
    keys: Sequence[bytes], identity: str, sent_s: int, body: bytes
) -> dict[str, str]:
    """The three headers of a delivery, with one signature for each key.

    Args:
        keys: the new one, and the old one while the receiver may still know only that.
        identity: the same for every attempt; the receiver tells repeats by it.
        sent_s: Unix time of this attempt, in seconds.
        body: its bytes, as they are sent.
    """
    signed = f"{identity}.{sent_s}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)) for key in keys]
    return {
        "webhook-id": identity,
        "webhook-timestamp": str(sent_s),
        "webhook-signature": " ".join(f"v1,{signature.decode()}" for signature in signatures),
    }
