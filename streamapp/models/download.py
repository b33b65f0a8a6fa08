"""A file from a web address, resumed where it was cut.

What arrived stays under the target's name with ``.part``, beside a note of the address and of the
server's validator (RFC 9110: ETag, else Last-Modified).  The rest is asked for with Range and
If-Range, so a file that changed meanwhile comes whole.  Whether what was put together is right is
for the sha256 to say.
"""

import io
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec

from streamapp.core.clock import monotonic_s
from streamapp.models.small import GARBLED, read_json

#: Called with the bytes that arrived so far.
Arrived = Callable[[int], None]

READ_S_MAX = 60
#: Whoever gives less than this in that time does not give it.
PACE_BYTES = 1 << 16
CHUNK_BYTES = 1 << 20
#: Attempts in a row that bring nothing; one that brings bytes starts the count again.
ATTEMPTS = 4
PAUSE_S = 0.5
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})


class SourceError(Exception):
    """This source did not give the file; the next one is tried."""


class _Cut(Exception):
    """The connection ended early; what arrived is kept."""


class _Slow(_Cut):
    """It drips, and there would be no end of it."""


class _Note(msgspec.Struct, frozen=True):
    """What a part is of."""

    url: str
    validator: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """A token is for the host that it was given for, not for where that sends us."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        if again is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            again.remove_header("Authorization")
        return again


_OPENER = urllib.request.build_opener(_Redirects)


def open_url(
    url: str, headers: dict[str, str] | None = None, token: str = "", timeout_s: float = READ_S_MAX
) -> "IO[bytes]":
    """The answer to a GET, whatever its host redirects to.

    Raises:
        OSError: no connection, or a status other than 200 and 206.
    """
    if not url.startswith(("https://", "http://")):
        raise SourceError(f"{url!r} is no web address")
    given = {"User-Agent": "streamapp", **(headers or {})}
    if token:
        given["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, headers=given)  # noqa: S310  # http and https only
    found: IO[bytes] = _OPENER.open(request, timeout=timeout_s)
    return found


def download(url: str, target: Path, size: int, arrived: Arrived, token: str = "") -> None:
    """Write what the address gives to ``target``; exactly ``size`` bytes.

    A part that an earlier process left is gone on with.

    Raises:
        SourceError: it does not answer, breaks off again and again, or has another size.
    """
    part = _part_of(target)
    failures = 0
    while True:
        before = _size(part)
        try:
            _go_on(url, target, size, arrived, token)
        except _Cut as error:
            grew = _size(part) > before and not isinstance(error, _Slow)
            failures = 0 if grew else failures + 1
            if failures >= ATTEMPTS:
                raise SourceError(f"{error}, {_size(part)} of {size} bytes arrived") from None
            time.sleep(PAUSE_S * failures)
        else:
            break
    part.replace(target)
    discard(target)


def discard(target: Path) -> None:
    """Forget what arrived of a file."""
    _part_of(target).unlink(missing_ok=True)
    _note_of(target).unlink(missing_ok=True)


def copy(stream: IO[bytes], target: Path, size: int, arrived: Arrived) -> None:
    """Write a stream of exactly ``size`` bytes to ``target``.

    Raises:
        SourceError: it has more or fewer.
    """
    done = 0
    try:
        with target.open("wb") as sink:
            _pour(stream, sink, 0, size, arrived)
            done = sink.tell()
    finally:
        if done != size:
            target.unlink()
    if done != size:
        raise SourceError(f"it has {done} bytes, the manifest declares {size}")


def read(stream: IO[bytes], bytes_max: int) -> bytes:
    """A short answer.

    Raises:
        SourceError: it is longer.
        OSError: it does not come to an end.
    """
    sink = io.BytesIO()
    _pour(stream, sink, 0, bytes_max, lambda _: None)
    return sink.getvalue()


def _go_on(url: str, target: Path, size: int, arrived: Arrived, token: str) -> None:
    """One request, for what is missing."""
    part, note = _part_of(target), _note_of(target)
    have = _resumable(url, target, size)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": _read_note(note).validator}
    try:
        with open_url(url, headers, token) as stream:
            start = have if stream.status == 206 else 0  # type: ignore[attr-defined]
            said: HTTPMessage = stream.headers  # type: ignore[attr-defined]
            if start and not (said["Content-Range"] or "").startswith(f"bytes {start}-"):
                discard(target)
                raise _Cut(f"it gave {said['Content-Range']!r} for bytes from {start}")
            _write_note(note, url, said)
            with part.open("r+b" if start else "wb") as sink:
                sink.truncate(start)
                sink.seek(start)
                _pour(stream, sink, start, size, arrived)
            _complete(target, start, size, said)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # what we have is no part of what is there now
            discard(target)
            raise _Cut("it changed meanwhile") from None
        if error.code in _TEMPORARY:
            raise _Cut(f"HTTP {error.code} {error.reason}") from None
        raise SourceError(f"HTTP {error.code} {error.reason}") from None
    except HTTPException as error:
        raise _Cut(f"it broke off: {error or type(error).__name__}") from None
    except TimeoutError:
        raise _Slow(f"next to nothing arrived for {READ_S_MAX} s") from None
    except urllib.error.URLError as error:
        raise _Cut(str(error.reason)) from None
    except ConnectionError as error:
        raise _Cut(f"it broke off: {error.strerror}") from None


def _complete(target: Path, start: int, size: int, said: HTTPMessage) -> None:
    """Tell a file of another size from one that was cut."""
    done, length = _size(_part_of(target)), said["Content-Length"]
    if done == size:
        return
    promised = start + int(length) if (length or "").isdigit() else None
    if promised is None or done < promised:
        raise _Cut("it broke off")
    discard(target)
    raise SourceError(f"it has {done} bytes, the manifest declares {size}")


def _pour(stream: IO[bytes], sink: IO[bytes], done: int, size: int, arrived: Arrived) -> None:
    until_s, wanted = monotonic_s() + READ_S_MAX, done + PACE_BYTES
    while chunk := stream.read1(min(CHUNK_BYTES, size + 1 - done)):  # type: ignore[attr-defined]
        done += len(chunk)
        if done > size:
            raise SourceError(f"it is larger than the {size} bytes the manifest declares")
        sink.write(chunk)
        sink.flush()  # what a killed process leaves is worth as much as it holds
        arrived(done)
        if done >= wanted:
            until_s, wanted = monotonic_s() + READ_S_MAX, done + PACE_BYTES
        elif monotonic_s() > until_s:
            raise TimeoutError(f"next to nothing arrived for {READ_S_MAX} s")


def _part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _resumable(url: str, target: Path, size: int) -> int:
    """How many bytes of the part count; 0 when it is of another address or cannot be checked."""
    found = _read_note(_note_of(target))
    have = _size(_part_of(target))
    return have if found.url == url and found.validator and 0 < have < size else 0


def _read_note(path: Path) -> _Note:
    try:
        return read_json(path, _Note)
    except (OSError, *GARBLED):
        return _Note("", "")


def _write_note(path: Path, url: str, said: HTTPMessage) -> None:
    """A weak ETag names what is equal in meaning, not in bytes: If-Range may not have one."""
    etag = said["ETag"] or ""
    validator = etag if etag and not etag.startswith("W/") else said["Last-Modified"] or ""
    path.write_bytes(msgspec.json.encode(_Note(url, validator)))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
