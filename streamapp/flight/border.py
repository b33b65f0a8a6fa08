"""Where our errors become Flight's: a code, a kind and words; never a traceback, never a path."""

import contextlib
import json
import logging
from collections.abc import Iterator

from pyarrow import flight

from streamapp.core.errors import Halt, Refuse, Retry, StreamappError

_log = logging.getLogger(__name__)

#: gRPC carries a message in a header, and clients take headers of 8 KiB; the text goes in twice,
#: percent-encoded, so a byte that is not ASCII takes three.
_MESSAGE_BYTES_MAX = 1500
_FIX_BYTES_MAX = 300

_KINDS = {
    "flight.token": flight.FlightUnauthenticatedError,
    "flight.not_allowed": flight.FlightUnauthorizedError,
    "sql.not_allowed": flight.FlightUnauthorizedError,
    "sql.time": flight.FlightTimedOutError,
    "sql.cancelled": flight.FlightCancelledError,
    "flight.internal": flight.FlightInternalError,
}


@contextlib.contextmanager
def as_flight_errors() -> Iterator[None]:
    """Our errors as Flight's; unexpected ones without details, which go to the log."""
    try:
        yield
    except (flight.FlightError, StopIteration):
        raise
    except StreamappError as error:
        raise flight_error(error) from None
    except Exception as error:  # noqa: BLE001  # the border: a client gets no traceback of ours
        _log.exception("a Flight call failed")
        failed = Retry(
            "flight.internal", f"the server failed ({type(error).__name__})", "see its log"
        )
        raise flight_error(failed) from None


class Untraceable(Exception):
    """Words for the one call of which pyarrow sends the traceback, Flight's errors included.

    Arrow formats it by the standard library, which asks for the cause; when that fails, it sends
    the message alone.
    """

    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise RuntimeError


def flight_error(error: StreamappError) -> flight.FlightError:
    """The error of Flight that says the same.

    Its extra info is JSON: ``kind`` (refuse, retry, reject, halt), ``code`` and ``fix``.
    """
    usual = flight.FlightUnavailableError if isinstance(error, Retry) else flight.FlightServerError
    if isinstance(error, Halt):
        usual = flight.FlightInternalError
    message, fix = short(error.message, _MESSAGE_BYTES_MAX), short(error.fix, _FIX_BYTES_MAX)
    about = {"kind": type(error).__name__.lower(), "code": error.code, "fix": fix}
    text = f"{message} ({fix})" if fix else message
    return _KINDS.get(error.code, usual)(text, json.dumps(about).encode())


def short(text: str, bytes_max: int) -> str:
    """The text in at most so many bytes of gRPC's percent-encoding."""
    room = bytes_max
    for at, character in enumerate(text):
        room -= 1 if " " <= character <= "~" else 3 * len(character.encode(errors="replace"))
        if room < 0:
            return text[:at] + " ..."
    return text


def unknown(name: str) -> Refuse:
    """What is not offered."""
    return Refuse(
        "flight.unknown", f"{short(name, 100)} is not offered", "list_actions says what is"
    )
