"""Where events of lineage go: lines of a file, or a server that they are posted to."""

import logging
import threading
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse
from streamapp.core.project import read_secret

#: Events that wait for a slow server; more are lost, which is counted.
WAITING_MAX = 10_000
#: Of one post, and of all that wait when the run has ended.
POST_S_MAX, CLOSE_S_MAX = 5.0, 10.0
_TRIES = 3
_log = logging.getLogger("streamapp.lineage")


class Sink(Protocol):
    """Takes events."""

    def take(self, event: dict[str, Any]) -> None:
        """Take an event; returns at once and raises nothing."""
        ...

    def close(self) -> int:
        """Deliver what is left; how many could not be."""
        ...


def sink_of(target: str, folder: Path, token: str = "") -> Sink:
    """The sink of a path or a URL.

    Args:
        target: a path, or http:// or https://.
        folder: where a relative path begins.
        token: ``env:NAME`` or ``file:PATH`` of a bearer token.

    Raises:
        Refuse: the file cannot be written, or the URL has no host.
    """
    if not target.startswith(("http://", "https://")):
        return FileSink((folder / Path(target).expanduser()).absolute())
    try:
        parts = urlsplit(target)
        is_address = parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of [ without ]
        is_address = False
    if not is_address:
        what = f"lineage: {target!r} names no host, or no port that there is"
        raise Refuse("lineage.url", what, "give http://HOST:PORT/PATH")
    return HttpSink(target, read_secret(token, folder) if token else "")


class FileSink:
    """Appends each event as a line of JSON."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise Refuse(
                "lineage.file", f"{path}: {error.strerror}", "give a file that can be written"
            ) from None
        self._lost = 0

    def take(self, event: dict[str, Any]) -> None:
        """As ``Sink.take``."""
        try:
            self._file.write(msgspec.json.encode(event) + b"\n")
            self._file.flush()
        except OSError as error:
            _log.warning("an event of lineage is lost: %s", error)
            self._lost += 1

    def close(self) -> int:
        """As ``Sink.close``."""
        self._file.close()
        return self._lost


class HttpSink:
    """Posts each event, in order, from a thread of its own."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._headers = {"Content-Type": "application/json", "User-Agent": "streamapp"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._waiting: Queue[bytes] = Queue(WAITING_MAX)
        self._ending = threading.Event()
        self._end_s = float("inf")
        self._lost = 0
        self._thread = threading.Thread(target=self._deliver, name="lineage", daemon=True)
        self._thread.start()

    def take(self, event: dict[str, Any]) -> None:
        """As ``Sink.take``."""
        try:
            self._waiting.put_nowait(msgspec.json.encode(event))
        except Full:
            self._lost += 1

    def close(self) -> int:
        """As ``Sink.close``; waits for ``CLOSE_S_MAX`` at most."""
        self._end_s = monotonic_s() + CLOSE_S_MAX
        self._ending.set()
        self._thread.join(CLOSE_S_MAX + POST_S_MAX)
        lost = self._lost + self._waiting.qsize()
        if lost:
            host = urlsplit(self._url).hostname  # beside it may stand a password
            _log.warning("%d events of lineage did not reach %s", lost, host)
        return lost

    def _deliver(self) -> None:
        while monotonic_s() < self._end_s:
            try:
                body = self._waiting.get(timeout=0.1)
            except Empty:
                if self._ending.is_set():
                    return
                continue
            if not self._posted(body):
                self._lost += 1

    def _posted(self, body: bytes) -> bool:
        for tried in range(_TRIES):
            request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310  # checked
            try:
                with urllib.request.urlopen(request, timeout=POST_S_MAX):  # noqa: S310
                    return True
            except urllib.error.HTTPError as error:
                if error.code < 500:  # it will not do better
                    _log.warning("lineage: status %d", error.code)
                    return False
            except (OSError, HTTPException) as error:
                _log.debug("lineage: %s", error)
            self._ending.wait(0.2 * 2**tried)
        return False
