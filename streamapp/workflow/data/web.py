"""HTTP with paging: JSON or JSON lines from a server, page after page."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import msgspec
import pyarrow as pa
from msgspec import Meta, field

from streamapp.core.errors import Refuse
from streamapp.workflow.data.contract import BadRow, Key, Options, Place
from streamapp.workflow.data.fetching import Fetch, Page, check_headers, check_origin, check_url
from streamapp.workflow.data.files import TEXT_MAX
from streamapp.workflow.data.json_rows import learn, parse
from streamapp.workflow.data.pointing import array_at, value_at
from streamapp.workflow.data.recovering import Record, recover

#: RFC 8288, as far as servers use it: <URL>; rel="next".
_LINK = re.compile(r'<([^>]*)>[^<]*?;\s*rel="?([^",;]*)"?')
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0, le=3600)]


class HttpOptions(Options, frozen=True, kw_only=True):
    """Of rows over HTTP.

    Args:
        headers: of every request; a value ``env:NAME`` or ``file:PATH`` is what that holds.
        body: ``json``, or ``jsonl``.
        records: where in the JSON the array of objects is, like ``data.items``.
        columns: types by name, for what the first page does not show.
        paging: how the next page is found: not at all; by the header Link (RFC 8288); by a URL in
            the body; by a cursor in the body; by counting pages; by counting rows.
        next: where in the body the URL or the cursor is; none there, null or "" ends.
        parameter: of the query that takes the cursor, the page's number or the row's.
        first: the first page's number, or row's.
        pages_max: more are an error.
        page_bytes_max: of a page, which is held in memory.
        timeout_s: of connecting and of each read.
        tries: of a page, while the server is away; it may say how long to wait (Retry-After).
        wait_s_max: the longest wait before the next try.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: Literal["json", "jsonl"] = "json"
    records: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    paging: Literal["none", "link", "next", "cursor", "page", "offset"] = "none"
    next: str = "next"
    parameter: str = ""
    first: Annotated[int, Meta(ge=0)] | None = None
    pages_max: Count = 10_000
    page_bytes_max: Annotated[int, Meta(ge=1, le=1 << 30)] = 32 << 20
    timeout_s: Seconds = 30.0
    tries: Annotated[int, Meta(ge=1, le=100)] = 4
    wait_s_max: Seconds = 60.0


class HttpReader:
    """Rows of a server's pages; an object that does not fit the first page's columns is bad."""

    Options: ClassVar[type[Options]] = HttpOptions
    suffixes: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[frozenset[Key]] = frozenset({"url"})

    def __init__(self, place: Place, options: Any) -> None:
        check_url(place.url, place.shown)
        if options.body == "jsonl" and options.paging in ("next", "cursor"):
            raise Refuse(
                "data.option",
                f"{place.shown}: JSON lines have no place for what paging {options.paging!r} needs",
                "set the option paging to link, page or offset",
            )
        self.place, self.options = place, options
        self._fetch: Fetch | None = None

    def schema(self) -> pa.Schema:
        """As ``Reader.schema``; fetches pages up to the first that has rows."""
        return self._learned(_first(self._pages()))

    def read(self) -> pa.RecordBatchReader:
        """As ``Reader.read``; the first page that has rows says what the columns are."""
        pages = self._pages()
        first = _first(pages)
        schema = self._learned(first)
        return pa.RecordBatchReader.from_batches(schema, self._batches(first, pages, schema))

    def _batches(
        self, first: list[Record], pages: Iterator[list[Record]], schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        page: list[Record] | None = first
        before = 0
        while page is not None:
            numbered = [Record(before + place, data) for place, data in page]
            yield from recover(numbered, lambda some: parse(some, schema), self._bad)
            before += len(page)
            page = next(pages, None)

    def _pages(self) -> Iterator[list[Record]]:
        """The records of each page, numbered from 1 in it."""
        url: str | None = self._first_url()
        seen: set[str] = set()
        rows = 0
        while url is not None:
            self._check_next(url, seen)
            seen.add(url)
            page = self._fetcher().get(url)
            records = self._records(page.body)
            rows += len(records)
            yield records
            url = self._next_url(url, page, len(seen), rows, empty=not records)

    def _check_next(self, url: str, seen: set[str]) -> None:
        shown, most = self.place.shown, self.options.pages_max
        if url in seen:
            raise Refuse(
                "source.loop", f"{shown}: page {len(seen)} names one that came before", "see next"
            )
        if len(seen) == most:
            raise Refuse(
                "source.pages_max",
                f"{shown} has more than pages_max = {most} pages",
                "raise the option pages_max, or ask for larger pages",
            )

    def _next_url(self, url: str, page: Page, pages: int, rows: int, *, empty: bool) -> str | None:
        options = self.options
        if options.paging in ("none", "") or (options.paging in ("page", "offset") and empty):
            return None
        if options.paging == "page":
            return self._with(url, self._first_number() + pages)
        if options.paging == "offset":
            return self._with(url, self._first_number() + rows)
        found = _link(page) if options.paging == "link" else self._in_body(page.body)
        if found is None or found is False or found == "":
            return None
        if found is True or not isinstance(found, str | int | float):
            raise Refuse(
                "source.paging",
                f"{self.place.shown}: what {options.next!r} says is no URL and no cursor",
                "correct the option next",
            )
        if options.paging == "cursor":
            return self._with(url, found)
        try:
            target = urljoin(url, str(found))
        except ValueError:
            target = ""
        check_origin(target, url)
        return target

    def _in_body(self, body: bytes) -> Any:
        document = msgspec.json.decode(body)
        if not isinstance(document, dict):
            raise Refuse(
                "source.paging",
                f"{self.place.shown}: a page is no object, so that it cannot name the next one",
                "set the option paging to link, page or offset",
            )
        return value_at(document, self.options.next)

    def _first_url(self) -> str:
        numbered = self.options.paging in ("page", "offset")
        return self._with(self.place.url, self._first_number()) if numbered else self.place.url

    def _first_number(self) -> int:
        given: int | None = self.options.first
        return given if given is not None else int(self.options.paging == "page")

    def _with(self, url: str, value: Any) -> str:
        """The URL with the paging's parameter set."""
        name = self.options.parameter or self.options.paging
        parts = urlsplit(url)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
        return urlunsplit(parts._replace(query=urlencode([*query, (name, str(value))])))

    def _records(self, body: bytes) -> list[Record]:
        if self.options.body == "jsonl":
            lines = [line for line in body.split(b"\n") if line.strip()]
            return [Record(place, line) for place, line in enumerate(lines, 1)]
        found = array_at(body, self.options.records, self.place.shown)
        return [Record(place, bytes(raw)) for place, raw in enumerate(found, 1)]

    def _learned(self, records: list[Record]) -> pa.Schema:
        return learn(records, self.options.columns, self.place.shown)

    def _fetcher(self) -> Fetch:
        if self._fetch is None:
            options = self.options
            headers = {"User-Agent": "streamapp", "Accept": "application/json"}
            for name, value in options.headers.items():
                is_reference = value.startswith(("env:", "file:"))
                headers[name] = self.place.secret(value).strip() if is_reference else value
            check_headers(headers, self.place.shown)
            self._fetch = Fetch(
                shown=self.place.shown,
                headers=headers,
                timeout_s=options.timeout_s,
                tries=options.tries,
                wait_s_max=options.wait_s_max,
                bytes_max=options.page_bytes_max,
            )
        return self._fetch

    def _bad(self, record: Record, reason: str) -> None:
        text = record.data.decode("utf-8", "replace")[:TEXT_MAX]
        self.place.on_bad(BadRow(self.place.shown, record.line, reason, text))


def _first(pages: Iterator[list[Record]]) -> list[Record]:
    """The first page with records; an empty one where none has any."""
    return next((page for page in pages if page), [])


def _link(page: Page) -> str | None:
    for header in page.headers.get_all("Link") or ():
        for target, relation in _LINK.findall(header):
            if "next" in relation.split():
                return str(target)
    return None
