"""Fields of a document, filled from its entities: the surest one of a label, in the asked form.

``text`` is as it stands, spaces in a row as one.  ``number`` reads amounts as people write them:
``R$ 1.234,56`` and ``EUR 1,234.56`` are 1234.56.  Where a number has one separator and three digits
behind it, it parts thousands, unless ``decimal`` says otherwise.  ``digits`` keeps digits only, as
for tax and telephone numbers.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streamapp.plugin import Entity, Refuse

KINDS = ("text", "number", "digits")
#: Digits with separators between them; a space is one only before three digits.
_NUMBER = re.compile(r"([-+\u2212]?)\s*([.,]?\d+(?:[.,'\u2019]\d+|\s\d{3}(?!\d))*)")
#: A number of more digits is none: no float and no BIGINT holds it.
DIGITS_MAX = 18
_KEYS = {"label": str, "kind": str, "decimal": str, "many": bool}

Value = str | float | int | None


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field comes from.

    ``label``: of the entities; ``kind``: one of ``KINDS``; ``decimal``: the sign before a number's
    fraction, ``.`` or ``,``, empty to find out; ``many``: all of them, in the order of the text.
    """

    label: str
    kind: str = "text"
    decimal: str = ""
    many: bool = False


def read_fields(given: Any, where: str) -> dict[str, Field]:
    """A table of the workflow: field to label, or to a table of a Field's keys.

    Raises:
        Refuse: it is no such table.
    """
    if not isinstance(given, dict):
        raise refuse(f"{where} is {given!r}", 'write number = "Invoice Number"')
    return {name: _field(said, f"{where}.{name}") for name, said in given.items()}


def filled(fields: Mapping[str, Field], entities: Iterable[Entity]) -> str:
    """The JSON object of the fields; null, or an empty list, for what is not there."""
    of_label: dict[str, list[Entity]] = {}
    for entity in entities:
        of_label.setdefault(entity.label, []).append(entity)
    found = {name: _value(field, of_label.get(field.label, [])) for name, field in fields.items()}
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def number(text: str, decimal: str = "") -> float | int | None:
    """The first number in a text; None when there is none, or one of more than DIGITS_MAX digits.

    Args:
        text: with signs of currencies and the like.
        decimal: the sign before the fraction; empty to find out.
    """
    match = _NUMBER.search(text)
    if match is None:
        return None
    said = re.sub(r"[\s'\u2019]", "", match[2])
    mark = decimal or _decimal(said)
    whole, _, fraction = said.rpartition(mark) if mark and mark in said else (said, "", "")
    whole = whole.replace(".", "").replace(",", "") or "0"
    if len(whole) + len(fraction) > DIGITS_MAX:
        return None
    sign = "-" if match[1] in {"-", "\u2212"} else ""
    return float(f"{sign}{whole}.{fraction}") if fraction else int(sign + whole)


def _decimal(said: str) -> str:
    """The sign that parts a number's fraction; empty when none does."""
    last = max(said.rfind("."), said.rfind(","))
    if last < 0:
        return ""
    mark = said[last]
    if {".", ","} <= set(said):
        return mark
    behind = len(said) - last - 1
    before = said[:last]
    thousands = said.count(mark) > 1 or (behind == 3 and 1 <= len(before) <= 3 and before != "0")
    return "" if thousands else mark


def _value(field: Field, entities: list[Entity]) -> Value | list[Value]:
    if field.many:
        return [_read(field, entity.text) for entity in entities]
    if not entities:
        return None
    return _read(field, max(entities, key=lambda entity: entity.score).text)


def _read(field: Field, text: str) -> Value:
    if field.kind == "number":
        return number(text, field.decimal)
    if field.kind == "digits":
        return re.sub(r"\D", "", text) or None
    return " ".join(text.split())


def _field(said: Any, where: str) -> Field:
    if isinstance(said, str) and said:
        return Field(said)
    if not isinstance(said, dict) or not said.get("label"):
        raise refuse(f"{where} is {said!r}", 'write "LABEL" or { label = "LABEL" }')
    for key, value in said.items():
        if key not in _KEYS:
            raise refuse(f"{where} has no key {key!r}", f"it takes {', '.join(_KEYS)}")
        if type(value) is not _KEYS[key]:
            raise refuse(f"{where}: {key} is {value!r}", f"give a {_KEYS[key].__name__}")
    field = Field(**said)
    if field.kind not in KINDS:
        raise refuse(f"{where}: kind is {field.kind!r}", f"one of {', '.join(KINDS)}")
    if field.decimal not in {"", ".", ","}:
        raise refuse(f"{where}: decimal is {field.decimal!r}", 'give "." or ","')
    return field


def refuse(why: str, fix: str) -> Refuse:
    """An option that cannot be used."""
    return Refuse("stage.option", f"stage 'entities': {why}", fix)
