"""One event of a type to look at, small, without what looks like a secret."""

import re
from typing import Any

import msgspec

REDACTED = "[redacted]"
_CHARS_MAX = 120
_MEMBERS_MAX, _ELEMENTS_MAX, _DEPTH_MAX = 40, 3, 4
_BYTES_MAX = 4_096
#: Names of what nobody should find in a sample, whatever the case and the joints of words.
_NAMES = re.compile(
    r"passw|passphrase|passcode|secret|token|api-?key|private-?key|access-?key|auth(?!ors?($|-))|bearer|"
    r"cookie|session|credential|signature|cvv|cvc|card-?n|iban|account-?n|social-?sec|tax-?id|"
    r"passport|(^|-)(pin|otp|pan|ssn|cpf|cnpj)($|-)",
    re.IGNORECASE,
)
_JOINTS = re.compile(r"[\s_.-]+|(?<=[a-z])(?=[A-Z])")
#: Values that are secrets under any name: JWTs, keys of known services, PEM, logins in URLs.
_VALUES = re.compile(
    r"\beyJ[\w-]{5,500}+\.[\w-]{5,}+\.|\b(sk|pk|rk)_(live|test)_\w{8,}|\bwhsec_\S{8,}|"
    r"\bgh[pousr]_\w{16,}|\bgithub_pat_\w{16,}|\bxox[abprs]-\S{8,}|\bAKIA[0-9A-Z]{16}\b|"
    r"\bAIza[\w-]{30,}|-----BEGIN [A-Z ]*KEY|\b(Bearer|Basic)\s+[\w+/=.-]{8,}|://[^/\s:@]*:[^/\s@]+@"
)
_DIGITS = re.compile(r"(?<![\w.])\d(?:[ -]?\d){13,18}(?![\w.])")
_encode = msgspec.json.Encoder().encode


class Sample(msgspec.Struct):
    """An event, redacted and cut; it had so many ``fields``."""

    event: Any
    fields: int


def redacted(value: Any) -> Any:
    """A small copy of an event without what looks like a secret, by its name or by its looks.

    Long texts, arrays and objects are cut; whatever is still larger than 4 KiB as JSON is left out.
    """
    copy = _copied(value, _DEPTH_MAX)
    while isinstance(copy, dict) and len(_encode(copy)) > _BYTES_MAX:
        largest = max(copy, key=lambda name: len(_encode(copy[name])))
        del copy[largest]
    return copy


def _copied(value: Any, depth: int, name: str = "") -> Any:
    if value is not None and _NAMES.search(_JOINTS.sub("-", name)):
        return REDACTED
    if isinstance(value, dict):
        members = list(value.items())[: _MEMBERS_MAX if depth else 0]
        return {key[:_CHARS_MAX]: _copied(cell, depth - 1, key) for key, cell in members}
    if isinstance(value, list):
        return [_copied(cell, depth - 1) for cell in value[: _ELEMENTS_MAX if depth else 0]]
    if isinstance(value, str | int) and not isinstance(value, bool):
        if _looks_secret(str(value)):
            return REDACTED
        if isinstance(value, str) and len(value) > _CHARS_MAX:
            return value[:_CHARS_MAX] + "…"
    return value


def _looks_secret(text: str) -> bool:
    """Whether the beginning of a text has a secret in it, or the number of a card."""
    text = text[:4_096]
    return bool(_VALUES.search(text)) or any(_is_card(found[0]) for found in _DIGITS.finditer(text))


def _is_card(text: str) -> bool:
    """Luhn's sum, of 14 to 19 digits (13 are a time in milliseconds)."""
    digits = [int(char) for char in text if char.isdecimal()]
    if not 14 <= len(digits) <= 19:
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
