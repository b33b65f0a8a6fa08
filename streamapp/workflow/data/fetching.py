"""One page over HTTP: within limits, tried again while the server is away, and from one origin."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from typing import IO, NamedTuple
from urllib.parse import quote, urlsplit

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import Refuse, Retry

#: The server may do better later (RFC 9110, 6585).
_TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
_DELAY_S = 0.5
#: Of one page, however slowly it comes.
PAGE_S_MAX = 600.0
_PIECE_BYTES = 1 << 20
#: What stands in URLs as it is (RFC 3986); all else is sent as its bytes in percent.
_OF_URLS = "%:/?#[]@!$&'()*+,;=~"
#: RFC 9110, 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Page(NamedTuple):
    """A body and its headers."""

    body: bytes
    headers: HTTPMessage


class _SameOrigin(urllib.request.HTTPRedirectHandler):
    """Headers may hold a secret, which is for the origin that it was given for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            check_origin(newurl, req.full_url)
        except Refuse:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameOrigin)


@dataclass(frozen=True, slots=True)
class Fetch:
    """How pages are fetched.

    Attributes:
        shown: the URL without secrets, for messages.
        headers: of every request.
        timeout_s: of connecting and of each read.
        tries: of one page.
        wait_s_max: the longest wait before the next try, whatever the server asks for.
        bytes_max: of a page.
    """

    shown: str
    headers: Mapping[str, str]
    timeout_s: float
    tries: int
    wait_s_max: float
    bytes_max: int

    def get(self, url: str) -> Page:
        """The page.

        Raises:
            Refuse: the server says no, the page is too large, or the URL is none.
            Retry: it did not answer in all tries.
        """
        for tried in range(1, self.tries + 1):
            try:
                return self._once(quote(url, safe=_OF_URLS))
            except (InvalidURL, ValueError):  # by the name or the port of its host
                raise _no_address(self.shown) from None
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in _TEMPORARY:
                    raise self._refused(error.code) from None
                reason, asked_s = f"status {error.code}", _seconds(error.headers)
            except (OSError, HTTPException) as error:
                reason, asked_s = str(getattr(error, "reason", error)) or repr(error), None
            if tried < self.tries:
                wait_s = _DELAY_S * 2 ** (tried - 1) if asked_s is None else asked_s
                time.sleep(min(wait_s, self.wait_s_max))
        raise Retry(
            "source.died", f"{self.shown}: {reason}, {self.tries} times", "is the server well?"
        )

    def _once(self, url: str) -> Page:
        request = urllib.request.Request(url, headers=dict(self.headers))  # noqa: S310  # checked
        with _OPENER.open(request, timeout=self.timeout_s) as answer:
            body = self._read(answer)
            if len(body) > self.bytes_max:
                raise Refuse(
                    "source.bytes_max",
                    f"{self.shown}: a page has more than {self.bytes_max} bytes",
                    "ask for smaller pages, or raise the option page_bytes_max",
                )
            declared = answer.headers.get("Content-Length", "")
            if _is_number(declared) and len(body) < int(declared):
                raise HTTPException(f"the page ended after {len(body)} of {declared} bytes")
            return Page(body, answer.headers)

    def _read(self, answer: HTTPResponse) -> bytes:
        """The body, and one byte more where it is too large."""
        body, end_s = bytearray(), monotonic_s() + PAGE_S_MAX
        while piece := answer.read1(min(_PIECE_BYTES, self.bytes_max + 1 - len(body))):
            body += piece
            if monotonic_s() > end_s:  # each read is in time, and there would be no end of them
                raise OSError(f"the page was not there within {PAGE_S_MAX:g} s")
        return bytes(body)

    def _refused(self, status: int) -> Refuse:
        fix = "correct the URL"
        if status in (401, 403):
            fix = "give headers: {authorization: env:NAME}, with the whole header in NAME"
        return Refuse("source.status", f"{self.shown} answers with status {status}", fix)


def check_url(url: str, shown: str) -> None:
    """Refuse what is no web address."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise _no_address(shown)


def check_headers(headers: Mapping[str, str], shown: str) -> None:
    """Refuse what cannot be sent; values are secrets, and not shown."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Refuse(
                "source.header",
                f"{shown}: the header {name!r} has characters that no header can have",
                "give one line of Latin-1",
            )


def check_origin(url: str, first: str) -> None:
    """Refuse to go to another origin than the declared one."""
    check_url(url, f"what {urlsplit(first).hostname} sends on to")
    to, known = urlsplit(url), urlsplit(first)
    if (to.scheme, to.netloc) != (known.scheme, known.netloc):
        raise Refuse(
            "source.origin",
            f"{known.hostname} sends on to {to.scheme}://{to.hostname}, another origin",
            "declare that one, if it is meant",
        )


def _no_address(shown: str) -> Refuse:
    return Refuse("source.url", f"{shown} is no web address", "give https://HOST/PATH")


def _seconds(headers: Message) -> float | None:
    """What Retry-After asks for, when it says it in seconds."""
    value = (headers.get("Retry-After") or "").strip()
    return float(value) if _is_number(value) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
