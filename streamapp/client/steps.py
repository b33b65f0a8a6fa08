"""What a client says and when it says it again, without a socket: one way for both clients.

A method of :class:`Steps` is a generator.  It yields a :class:`Call` and is sent what came of it,
or yields a :class:`Pause`; what it returns is the outcome.  Who runs it has the sockets.
"""

import os
import random
import ssl
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from streamapp.client.outcomes import Outcome, Received, Rejected
from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Reject, Retry
from streamapp.core.steps import Pause, retry_after_s

Wait = Literal["ack", "accepted"]
#: Answers after which the same request may be repeated.
BUSY = frozenset({408, 425, 429, 502, 503, 504})
#: Of a Silence that lasts.
NO_HTTP, UNTRUSTED = "client.http", "client.certificate"
_FIXES = {
    NO_HTTP: "check that the URL is that of a streamapp gateway",
    UNTRUSTED: "give the authorities to trust, and a certificate if it wants one (tls=)",
}
_TOO_LARGE = 413
_UNIT_BYTES_MAX = 8 << 10
_ANSWER_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client waits, in seconds.

    Args:
        attempt_s: for one request's answer.
        retry_s: from the first attempt to the beginning of the last one.
        first_s: the same of a gateway that never answered this client.
        backoff_s: the first pause; it doubles, and each is shortened by chance.
        backoff_s_max: the longest pause, unless Retry-After asks for more.
    """

    attempt_s: float = 30.0
    retry_s: float = 60.0
    first_s: float = 60.0
    backoff_s: float = 0.1
    backoff_s_max: float = 5.0


class Call(NamedTuple):
    """A POST; an answer of more than ``answer_bytes_max`` is none."""

    path: str
    headers: dict[str, str]
    body: bytes
    answer_s_max: float
    answer_bytes_max: int


class Answer(NamedTuple):
    """What a gateway said."""

    status: int
    content: bytes
    retry_after: str = ""


class Silence(NamedTuple):
    """That it said nothing, and why; with a ``code`` when asking again is of no use."""

    why: str
    code: str = ""


Progress = Generator[Call | Pause, Answer | Silence | None, list[Outcome]]


class _Line(msgspec.Struct):
    """What ``POST /v1/events`` says of one event."""

    status: str
    id: str = ""
    partition: int | None = None
    offset: int | None = None
    code: str = ""
    error: str = ""
    fix: str = ""


class _Lines(msgspec.Struct):
    """What it says of all, in the order of the body's lines."""

    events: list[_Line]


class _Problem(msgspec.Struct):
    """RFC 9457, and what others say instead."""

    code: str = ""
    detail: str = ""
    title: str = ""
    message: str = ""
    fix: str = ""


_lines = msgspec.json.Decoder(_Lines)
_problem = msgspec.json.Decoder(_Problem)


class Steps:
    """The steps of one client.

    Args:
        url: of the gateway; a path in front of ours is kept.
        token: sent with every request, if there is one.
        patience: how long to wait.
        now_s: monotonic seconds.

    Raises:
        Refuse: ``client.url``, ``client.token``.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        patience: Patience | None = None,
        *,
        now_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self.url = checked(url)
        self.patience = patience or Patience()
        #: Requests that were repeated, of all calls.
        self.retries = 0
        self._answered = False
        self._now_s = now_s
        parts = urlsplit(self.url)
        #: Of the gateway's host, to be put before a Call's path.
        self.origin, self._prefix = f"{parts.scheme}://{parts.netloc}", parts.path
        self._headers = {"Content-Type": "application/x-ndjson", "Accept": "application/json"}
        if token:
            if not _printable(token):
                raise Refuse("client.token", "the token is not printable ASCII", "copy it again")
            self._headers["Authorization"] = f"Bearer {token}"

    def batch(
        self,
        lines: Sequence[bytes | Rejected],
        *,
        first: int = 1,
        topic: str | None,
        key: str,
        wait: Wait,
    ) -> Progress:
        """Post events as one request, which is halved while it is too large.

        Args:
            lines: one event each, without the line's end; what is Rejected is not sent.
            first: the place of the first one, for the outcomes.
            topic: None for the gateway's default.
            key: the Idempotency-Key; the same lines with the same key are the same events.
            wait: what the answer waits for.

        Raises:
            Refuse: the gateway does not take the request, however often it comes; ``client.key``.
            Retry: it did not answer in time; the same call may be repeated.
        """
        if not key or not _printable(key):
            raise Refuse("client.key", f"the key {key[:80]!r} is not printable ASCII", "use a UUID")
        numbers = [first + n for n, line in enumerate(lines) if isinstance(line, bytes)]
        good = [line for line in lines if isinstance(line, bytes)]
        sent = iter((yield from self._post(good, numbers, topic, key, wait)))
        return [line if isinstance(line, Rejected) else next(sent) for line in lines]

    def _post(
        self, lines: list[bytes], numbers: list[int], topic: str | None, key: str, wait: Wait
    ) -> Progress:
        if not lines:
            return []
        path = self._prefix + ("/v1/events" if topic is None else f"/v1/events/{_quoted(topic)}")
        answer = yield from self._answer(
            Call(
                path + ("?wait=accepted" if wait == "accepted" else ""),
                self._headers | {"Idempotency-Key": _as_string(key)},
                b"\n".join(lines),
                self.patience.attempt_s,
                _ANSWER_BYTES_MAX + _UNIT_BYTES_MAX * len(lines),
            )
        )
        if answer.status == _TOO_LARGE:
            if len(lines) == 1:
                return [Rejected(numbers[0], *_said(answer))]
            middle = len(lines) // 2  # nothing was taken: other ids lose nothing
            left = yield from self._post(lines[:middle], numbers[:middle], topic, key + ".1", wait)
            right = yield from self._post(lines[middle:], numbers[middle:], topic, key + ".2", wait)
            return left + right
        return [
            _outcome(*pair) for pair in zip(self._told(answer, len(lines)), numbers, strict=True)
        ]

    def _answer(self, call: Call) -> Generator[Call | Pause, Answer | Silence | None, Answer]:
        """The gateway's answer, asked for until there is one that is not "later"."""
        patience = self.patience
        started_s, pause_s = self._now_s(), patience.backoff_s
        while True:
            answer = yield call
            if isinstance(answer, Answer):
                self._answered = True
                if answer.status not in BUSY:
                    return answer
                asked_s, why = retry_after_s(answer.retry_after), _busy(answer)
            else:
                assert answer is not None  # noqa: S101  # who runs a Call answers it
                asked_s, why = 0.0, answer.why
                if answer.code:
                    raise Refuse(answer.code, f"{self.url}: {why}", _FIXES[answer.code])
            wait_s = max(asked_s, pause_s * random.uniform(0.5, 1))  # noqa: S311  # spreads clients
            self._give_up_after(self._now_s() - started_s + wait_s, why)
            self.retries += 1
            yield Pause(wait_s)
            pause_s = min(2 * pause_s, patience.backoff_s_max)

    def _give_up_after(self, spent_s: float, why: str) -> None:
        retry_s = self.patience.retry_s
        if self._answered:
            if spent_s > retry_s:
                told = f"the gateway at {self.url} took nothing for {retry_s:g} s: {why}"
                raise Retry("client.gave_up", told, "call again with the same key")
        elif spent_s > min(retry_s, self.patience.first_s):
            raise Retry(
                "client.unreachable",
                f"no gateway answers at {self.url}: {why}",
                "start it with `streamapp up`, or give its URL",
            )

    def _told(self, answer: Answer, lines: int) -> list[_Line]:
        try:
            told = _lines.decode(answer.content).events
        except msgspec.DecodeError:
            told = []
        if len(told) == lines:
            return told
        code, message, fix = _said(answer)
        raise Refuse(code, f"{self.url}: {message}", fix)


def checked(url: str) -> str:
    """A gateway's URL without its last slash.

    Raises:
        Refuse: ``client.url``.
    """
    fix = "write it like http://127.0.0.1:9382"
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            if parts.username is not None or parts.password is not None:
                raise Refuse("client.url", "the URL names a user, and URLs are shown", "use token=")
            if not (parts.query or parts.fragment or " " in url) and _printable(url):
                return url.rstrip("/")
    except ValueError:  # a port that is none, brackets that do not close
        pass
    raise Refuse("client.url", f"{url[:200]!r} is not a gateway's URL", fix)


def _outcome(told: _Line, line: int) -> Outcome:
    if told.status in {"received", "accepted"}:
        return Received(line, told.id, told.partition, told.offset)
    return Rejected(line, told.code, told.error, told.fix)


def _said(answer: Answer) -> tuple[str, str, str]:
    """Code, message and fix of an error answer, in the gateway's words where it has some."""
    try:
        said = _problem.decode(answer.content)
    except msgspec.DecodeError:
        said = _Problem()
    text = said.detail or said.message or said.title
    if said.code and text:
        return said.code, text, said.fix
    text = text or answer.content[:200].decode(errors="replace") or "nothing"
    fix = said.fix or "check that the URL is that of a streamapp gateway"
    return f"http.{answer.status}", f"HTTP {answer.status}: {text}", fix


def _busy(answer: Answer) -> str:
    code, message, _ = _said(answer)
    return message if code.startswith("http.") else f"HTTP {answer.status}: {message} [{code}]"


def _quoted(topic: str) -> str:
    return quote(topic, safe="")


def _printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _as_string(text: str) -> str:
    """A String of RFC 9651, section 4.1.6."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def received(outcomes: Sequence[Outcome]) -> Received:
    """The one event's outcome.

    Raises:
        Reject: it was not taken.
    """
    (outcome,) = outcomes
    if isinstance(outcome, Rejected):
        raise Reject(outcome.code, outcome.message, outcome.fix)
    return outcome


def silence(error: Exception, *, is_http: bool = True) -> Silence:
    """What an exception means: broken connections heal, strangers and wrong protocols do not."""
    why = _why(error)
    tls = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(tls, ssl.SSLError) and not isinstance(tls, ssl.SSLEOFError):
        return Silence(why, UNTRUSTED)
    if is_http:
        return Silence(why)
    first = str(getattr(error, "message", why)).partition("\n")[0].rstrip(":")
    return Silence(f"it does not speak HTTP ({first[:80]})", NO_HTTP)


def _why(error: Exception) -> str:
    """The system's word for what broke, where there is one: who was asked is said beside it."""
    cause = getattr(error, "os_error", error)  # aiohttp's
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, ssl.SSLError):
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return str(error) or type(error).__name__
