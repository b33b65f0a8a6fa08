"""Errors as Confluent's clients know them: ``{"error_code", "message"}``.

The numbers are those of kafka-rest's ``Errors`` and rest-utils' ``KafkaExceptionMapper``: the first
three digits are the HTTP status.  ``error`` repeats ``message`` for clients of other vendors.
"""

from collections.abc import Mapping

import msgspec
from aiohttp import web

from streamapp.core.errors import Retry, StreamappError
from streamapp.gateway.problem import RETRY_AFTER, SERVER, ProblemError

#: Whose errors are told in these words.
PREFIXES = ("/topics", "/brokers", "/consumers", "/v3", "/subjects", "/schemas/")

UNAUTHENTICATED, FORBIDDEN = 40101, 40301
NO_TOPIC, NO_PARTITION, NO_INSTANCE, NO_PLACE_V3 = 40401, 40402, 40403, 40403
WRONG_FORMAT = 40601
ALREADY_SUBSCRIBED, INSTANCE_EXISTS, ILLEGAL_STATE = 40901, 40902, 40903
UNPROCESSABLE, BAD_JSON, BAD_CONFIG, BAD_PAYLOAD, BAD_BATCH = 422, 42203, 42204, 42206, 42208
TOO_MANY = 42901
KAFKA_FINAL, NO_BROKER = 50002, 50302

#: Our dotted codes that have a number of their own, and Confluent's words where it has some.
_NUMBERS: dict[str, tuple[int, str]] = {
    "request.token": (UNAUTHENTICATED, ""),
    "request.scope": (FORBIDDEN, ""),
    "request.rate": (TOO_MANY, ""),
    "request.origin": (FORBIDDEN, ""),
    "request.host": (FORBIDDEN, ""),
    "topic.internal": (FORBIDDEN, ""),
    "log.forbidden": (FORBIDDEN, "The log does not allow it."),
    "topic.unknown": (NO_TOPIC, "Topic not found."),
    "topic.name": (NO_TOPIC, "Topic not found."),
    "topic.partition": (NO_PARTITION, "Partition not found."),
    "gateway.busy": (TOO_MANY, ""),
    "request.path": (404, "HTTP 404 Not Found"),
    "request.method": (405, "HTTP 405 Method Not Allowed"),
    "group.kind": (ILLEGAL_STATE, "Illegal state: the group is that of another kind of consumer."),
    "group.busy": (ILLEGAL_STATE, "Illegal state: others are members of the group."),
    "group.moved": (
        ILLEGAL_STATE,
        "Illegal state: the group distributes its partitions anew; read again, then commit.",
    ),
}
_encode = msgspec.json.Encoder().encode


class ConfluentError(ProblemError):
    """A request, or one record of it, answered with Confluent's number."""

    def __init__(
        self, error_code: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        number = str(error_code)
        super().__init__(int(number[:3]), f"confluent.{number}", message, headers=headers)
        self.error_code = error_code

    @property
    def envelope(self) -> dict[str, object]:
        return {"error_code": self.error_code, "message": self.message, "error": self.message}

    def response(self) -> web.Response:
        kind = {**SERVER, "Content-Type": "application/json"}
        return web.Response(
            status=self.status, body=_encode(self.envelope), headers={**kind, **self.headers}
        )


def speaks_confluent(path: str) -> bool:
    """Whether errors at this path are told in Confluent's words."""
    return path.startswith(PREFIXES)


def translated(error: Exception, problem: ProblemError, path: str = "") -> ConfluentError:
    """Confluent's error for one of ours.

    Args:
        error: what was raised.
        problem: what a client of our own protocols would be told of it.
        path: of the request.
    """
    v3 = path.startswith("/v3/")
    if isinstance(error, ConfluentError):
        return in_v3(error) if v3 else error
    code = error.code if isinstance(error, StreamappError) else problem.code
    told = f"{problem.message} ({problem.fix})" if problem.fix else problem.message
    if code in _NUMBERS:
        number, words = _NUMBERS[code]
        found = ConfluentError(number, words or told, problem.headers)
        return in_v3(found) if v3 else found
    if isinstance(error, Retry):
        return ConfluentError(NO_BROKER, told, RETRY_AFTER)
    return ConfluentError(problem.status, told, problem.headers)


def in_v3(error: ConfluentError) -> ConfluentError:
    """v3 has one number for a topic and a partition that are not there."""
    if error.error_code in {NO_TOPIC, NO_PARTITION}:
        return ConfluentError(NO_PLACE_V3, "This server does not host this topic-partition.")
    return error


def bad_request(message: str) -> ConfluentError:
    """400: the body is not what it says it is."""
    return ConfluentError(400, message)


def unprocessable(message: str, error_code: int = UNPROCESSABLE) -> ConfluentError:
    """422: well formed, but not what is asked for here."""
    return ConfluentError(error_code, message)
