"""Events against the JSON Schema of their topic: refused, dead-lettered, or let through and told.

The value of a record is what is checked: the JSON object that the client sent, the data of a
CloudEvent, the row of an Arrow batch.  Topics that do not say ``validate`` have no rules.
"""

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec

from streamapp.core.errors import Halt, Refuse, Reject
from streamapp.core.metrics import Metrics
from streamapp.gateway.stamp import Stamped, Violation
from streamapp.topics.catalogue import Catalogue, Topic
from streamapp.topics.dead import context_headers
from streamapp.transport.clients import Address, Outgoing

CODE = "event.schema"
#: Header of a record that was let through: the path in the event, and the rule it breaks.
HEADER = "streamapp.schema"
_STAGE = "gateway"
_TOLD_MAX = 3
_PATH_CHARS_MAX, _WHAT_CHARS_MAX = 200, 200
#: Schemas refer to each other by file name; nothing is ever fetched.
_BASE = "topics:///schemas/"
_ALL_ERRORS_BYTES_MAX = 8_192
#: Keywords whose error tells those of every branch.
_CHOICE = re.compile(rb'"(anyOf|oneOf)"')
_decode = msgspec.json.Decoder().decode


class Letter(Outgoing):
    """A record that goes to ``dead_letter`` in place of its topic, and why."""

    dead_letter: str
    why: Reject


class DeadLettered(Reject):
    """An event that its topic did not take and another keeps, at ``address``."""

    def __init__(self, why: Reject, address: Address) -> None:
        where = f"{address.topic} has it at {address.partition}:{address.offset}"
        super().__init__(why.code, why.message, f"{where}; {why.fix}")
        self.address = address

    def __reduce__(self) -> Any:
        return type(self), (Reject(self.code, self.message, self.fix), self.address)


class Rules:
    """One topic's schema, and what becomes of events that it does not take."""

    def __init__(self, topic: Topic, folder: Path, metrics: Metrics) -> None:
        self._topic = topic
        self._schema = topic.schema or ""
        self._validator = _compiled(folder, self._schema, topic.name)
        self._has_choices = any(_CHOICE.search(path.read_bytes()) for path in _files(folder))
        self._violations = metrics.schema_violations.labels(topic.name, topic.validate)

    @property
    def makes_letters(self) -> bool:
        """Whether ``judged`` may return records for another topic."""
        return self._topic.validate == "dead-letter"

    def doubtful(self, values: Iterable[memoryview]) -> list[int]:
        """The places of those events that ``judged`` must see; it would return the others."""
        return [place for place, value in enumerate(values) if not self._takes(value)]

    def _takes(self, value: memoryview) -> bool:
        try:
            return self._validator.is_valid(_decode(value))
        except (RecursionError, ValueError):  # too deep, which ``judged`` says
            return False

    def judged(self, stamped: Stamped) -> Stamped:
        """The event as it may be sent: unchanged, with a note, or as a ``Letter``.

        Raises:
            Reject: ``event.schema``, where the topic rejects; the message has the path in the event
                and the rule, and no value of the event.
        """
        try:
            value = _decode(stamped.record.value or b"")
            if self._validator.is_valid(value):
                return stamped
            found = self._violations_of(value, len(stamped.record.value or b""))
        except (RecursionError, ValueError):  # the latter is the validator's, for the same
            raise Reject("event.depth", "JSON is nested too deeply", "send flatter JSON") from None
        self._violations.inc()
        if self._topic.validate == "observe":
            return _noted(stamped, found[0])
        why = self._reject(found)
        if self.makes_letters:
            return self._letter(stamped, why)
        raise why

    def _violations_of(self, value: Any, nbytes: int) -> list[Violation]:
        """What is wrong, one more than is told at most.

        The validator makes all errors at once, some 10 us each, and a large event may have half a
        million.  It is asked for the first one then, which without ``anyOf`` is made alone.
        """
        if nbytes <= _ALL_ERRORS_BYTES_MAX:
            errors = islice(self._validator.iter_errors(value), _TOLD_MAX + 1)
            return [self._violation(error) for error in errors]
        if self._has_choices:
            return [Violation("", self._schema, "it is too large to say where it is wrong")]
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return [self._violation(error)]
        raise Halt("schema.verdict", f"{self._schema} takes and refuses the same event")

    def _violation(self, error: jsonschema_rs.ValidationError) -> Violation:
        path = "".join(f"/{_pointer(part)}" for part in error.instance_path)
        rule = (error.absolute_keyword_location or "").removeprefix(_BASE)
        return Violation(
            path[:_PATH_CHARS_MAX], rule[:_PATH_CHARS_MAX], error.message[:_WHAT_CHARS_MAX]
        )

    def _reject(self, found: list[Violation]) -> Reject:
        told = [
            f"at {one.path or 'the top'}: {one.error} (rule {one.rule})"
            for one in found[:_TOLD_MAX]
        ]
        more = ", and more" if len(found) > _TOLD_MAX else ""
        return Reject(CODE, "; ".join(told) + more, f"send what schema {self._schema} describes")

    def _letter(self, stamped: Stamped, why: Reject) -> Stamped:
        context = {
            "topic": self._topic.name,
            "partition": "-1",
            "offset": "-1",
            "stage": _STAGE,
            "exception.class.name": why.code,
            "exception.message": why.message,
        }
        value, key, headers, *_ = stamped.record
        letter = Letter(value, key, context_headers(headers, context))
        letter.dead_letter, letter.why = self._topic.dead_letter or "", why
        return stamped._replace(record=letter)


def rules_of(topic: Topic, catalogue: Catalogue, metrics: Metrics) -> Rules | None:
    """The topic's rules; None when its events are not checked.

    Raises:
        Refuse: ``topic.schema``: the schema cannot be read, is none, or refers to what is not in
            ``topics/schemas``.
    """
    return None if topic.validate is None else Rules(topic, catalogue.folder / "schemas", metrics)


def _noted(stamped: Stamped, violation: Violation) -> Stamped:
    note = f"{violation.path} {violation.rule}".encode()
    record = stamped.record
    return stamped._replace(
        record=record._replace(headers=[*record.headers, (HEADER, note)]), violation=violation
    )


def _compiled(folder: Path, name: str, topic: str) -> jsonschema_rs.Validator:
    where = f"{folder / name} (schema of topic {topic})"
    if "/" in name or not (folder / name).is_file():
        there = ", ".join(path.name for path in _files(folder)) or "none"
        raise Refuse("topic.schema", f"{where} is not there", f"schemas that are: {there}")
    schema = _read(folder / name)
    others = [path for path in _files(folder) if path.name != name]
    try:
        return jsonschema_rs.validator_for(
            schema,
            validate_formats=True,
            registry=jsonschema_rs.Registry([(_BASE + path.name, _read(path)) for path in others]),
            base_uri=_BASE + name,
            pattern_options=jsonschema_rs.RegexOptions(),  # in linear time, whatever the pattern
            mask="the value",  # what is told of an event has none of its values
            offline=True,
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        what = str(getattr(error, "message", error)).partition("\n")[0]
        at = "".join(f"/{_pointer(part)}" for part in getattr(error, "instance_path", ()))
        raise Refuse(
            "topic.schema",
            f"{where}: {f'at {at}: ' if at else ''}{what[:300]}",
            "mend it; a $ref names a file beside it, and patterns have no look-around",
        ) from None


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(path: Path) -> Any:
    try:
        schema = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise Refuse("topic.schema", f"{path}: {error.strerror}", "check its mode") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refuse("topic.schema", f"{path} is not JSON: {error}", "mend it") from None
    if not isinstance(schema, dict):
        raise Refuse("topic.schema", f"{path} is no JSON object", "write a JSON Schema")
    return schema


def _pointer(part: str | int) -> str:
    """A step of a JSON Pointer (RFC 6901)."""
    return str(part).replace("~", "~0").replace("/", "~1")
