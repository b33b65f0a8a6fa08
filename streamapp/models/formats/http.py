"""HTTP to one server, by a few connections that are kept.

Inference changes nothing on the server, so a request may be said again: at once where a kept
connection turned out to be dead, after a pause where the server says that it is busy.  Everything
together takes no longer than the timeout.
"""

import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from threading import BoundedSemaphore, Event, Lock
from urllib.parse import SplitResult, urlsplit

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.core.steps import retry_after_s
from streamapp.models.formats.timed import TimedConnection
from streamapp.models.manifest import RemoteSpec

CHUNK_BYTES = 1 << 20
PAUSE_S_FIRST = 0.1
PAUSE_S_MAX = 5.0
SAID_CHARS_MAX = 300
#: Answers after which the same request may succeed.
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Answers that say that this request is wrong.
_WRONG = frozenset({400, 413, 415, 422})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Unsaid(Exception):
    """The connection did not carry the request or the answer."""


class Pool:
    """Connections to a server.

    Args:
        remote: URL, token and limits; ``env:`` and ``file:`` are resolved already.
        who: the model, for messages.
        clock: what the timeout is measured by.

    Raises:
        Refuse: the URL is none, or holds a password.
    """

    def __init__(self, remote: RemoteSpec, who: str, clock: Clock = SYSTEM) -> None:
        parts = _checked(remote.url, who)
        self._remote, self._who, self._clock = remote, who, clock
        self._host, self._port = parts.hostname or "", parts.port
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._path = parts.path.rstrip("/")
        self._idle: deque[TimedConnection] = deque()
        self._lock = Lock()
        self._slots = BoundedSemaphore(remote.connections)
        self._closed = Event()

    def get(self, path: str) -> Answer:
        """As ``post``, without a body."""
        return self._asked("GET", path, b"", {})

    def probe(self, path: str) -> Answer:
        """What the server answers to one GET below the URL, of whatever status.

        Raises:
            Retry: it does not answer.
        """
        deadline_s = self._clock.monotonic_s() + self._remote.timeout_s
        try:
            return self._carried(("GET", self._path + path, b"", self._headers({})), deadline_s)
        except _Unsaid as error:
            raise self._away(str(error)) from None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """What the server answers to a request below the URL, status 200.

        Raises:
            Reject: the request is too large, or the server says that it is wrong.
            Retry: the server is away, busy, too slow, or refuses us.
        """
        return self._asked("POST", path, body, headers)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        self._closed.set()
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def garbled(self, why: str) -> Retry:
        """The error for an answer that cannot be understood."""
        return Retry(
            "models.remote",
            f"{self._who}: {self._remote.url} answered what is no answer: {why}",
            "check what listens at that URL",
        )

    def _asked(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        if len(body) > self._remote.body_bytes_max:
            raise Reject(
                "models.remote",
                f"{self._who}: a request of {len(body)} bytes is too large",
                f"send fewer rows, or raise body_bytes_max ({self._remote.body_bytes_max})",
            )
        deadline_s = self._clock.monotonic_s() + self._remote.timeout_s
        request = (method, self._path + path, body, self._headers(headers))
        for attempt in range(self._remote.attempts):
            failed, pause_s = self._tried(request, deadline_s)
            if isinstance(failed, Answer):
                return failed
            pause_s = min(pause_s or PAUSE_S_FIRST * 2**attempt, PAUSE_S_MAX)
            is_last = attempt == self._remote.attempts - 1
            if is_last or self._clock.monotonic_s() + pause_s >= deadline_s:
                raise failed
            if self._closed.wait(pause_s):
                raise self._is_closed()
        raise AssertionError  # pragma: no cover  # attempts are at least one

    def _tried(
        self, request: tuple[str, str, bytes, dict[str, str]], deadline_s: float
    ) -> tuple[Answer | StreamappError, float]:
        """An answer or why there is none, and the pause that the server asks for, 0 for any."""
        try:
            answer = self._carried(request, deadline_s)
        except _Unsaid as error:
            return self._away(str(error)), 0.0
        if answer.status == 200:
            return answer, 0.0
        failed = self._refused(answer)
        if answer.status not in _BUSY:
            raise failed
        return failed, retry_after_s(answer.headers.get("retry-after", ""))

    def _carried(
        self, request: tuple[str, str, bytes, dict[str, str]], deadline_s: float
    ) -> Answer:
        """One answer; over a new connection if a kept one turns out to be dead."""
        if not self._slots.acquire(timeout=max(0.0, deadline_s - self._clock.monotonic_s())):
            raise _Unsaid(f"all {self._remote.connections} connections are busy")
        try:
            while True:
                connection, kept = self._connection(deadline_s)
                try:
                    answer, reusable = self._exchanged(connection, request)
                except (OSError, HTTPException) as error:
                    connection.close()
                    if kept and isinstance(error, ConnectionError):
                        continue
                    raise _Unsaid(_why(error)) from None
                except BaseException:
                    connection.close()
                    raise
                self._put_back(connection, reusable=reusable)
                return answer
        finally:
            self._slots.release()

    def _connection(self, deadline_s: float) -> tuple[TimedConnection, bool]:
        """A connection for one exchange, and whether it was used before."""
        if self._closed.is_set():
            raise self._is_closed()

        def left() -> float:
            return self._left(deadline_s)

        with self._lock:
            if self._idle:
                connection = self._idle.pop()
                connection.left = left
                return connection, True
        return TimedConnection(self._host, self._port, self._tls, left), False

    def _put_back(self, connection: TimedConnection, *, reusable: bool) -> None:
        with self._lock:
            if reusable and not self._closed.is_set():
                self._idle.append(connection)
                return
        connection.close()

    def _exchanged(
        self, connection: TimedConnection, request: tuple[str, str, bytes, dict[str, str]]
    ) -> tuple[Answer, bool]:
        """An answer, and whether the connection can be used again."""
        method, path, body, headers = request
        connection.request(method, path, body or None, headers)
        response = connection.getresponse()
        content = self._read(response)
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, content), not response.will_close

    def _read(self, response: HTTPResponse) -> bytes:
        parts, size = [], 0
        while part := response.read1(CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > self._remote.body_bytes_max:
                raise HTTPException(f"its answer is over {self._remote.body_bytes_max} bytes")
        if response.length:  # read1 does not say so itself
            raise HTTPException(f"its answer ended {response.length} bytes early")
        response.close()
        return b"".join(parts)

    def _left(self, deadline_s: float) -> float:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        return left_s

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        given = {"User-Agent": "streamapp", "Accept": "*/*", **headers}
        if self._remote.token:
            given["Authorization"] = f"Bearer {self._remote.token}"
        return given

    def _refused(self, answer: Answer) -> StreamappError:
        token = self._remote.token.encode()  # some servers say it again
        body = answer.body.replace(token, b"***") if token else answer.body
        said = _line(body[:SAID_CHARS_MAX].decode(errors="replace"))
        what = f"{self._who}: {self._remote.url} answered {answer.status}: {said}"
        if answer.status in _WRONG:
            return Reject("models.remote", what, "correct the input")
        fix = "look at the server's log"
        if answer.status in (401, 403):
            fix = "check token in [remote]"
        elif answer.status == 404 or 300 <= answer.status < 400:
            fix = "check url and model in [remote]"
        return Retry("models.remote", what, fix)

    def _away(self, why: str) -> Retry:
        return Retry(
            "models.remote",
            f"{self._who}: {self._remote.url} does not answer: {why}",
            "start the server, or check url in [remote]",
        )

    def _is_closed(self) -> Halt:
        return Halt("models.closed", f"{self._who} is closed", "open it again")


def _checked(url: str, who: str) -> SplitResult:
    """The parts of a URL that can be asked; its text is in no message, it may hold a password."""
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fit = False
    if not fit:
        raise Refuse("models.remote", f"{who}: url in [remote] is no URL", "write http://HOST:PORT")
    if parts.username is not None:
        raise Refuse(
            "models.remote",
            f"{who}: url in [remote] holds a user name",
            "write the URL without, and token = env:NAME or file:PATH",
        )
    return parts


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return _line(str(error)) or type(error).__name__


def _line(said: str) -> str:
    """What a server said, as one line of a log."""
    shown = "".join(c if c.isprintable() else " " for c in said[:SAID_CHARS_MAX])
    return " ".join(shown.split())
