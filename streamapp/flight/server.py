"""The Flight server in the store's process: SQL text as a ticket, or Flight SQL for drivers."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

import duckdb

from streamapp.core.config import Settings
from streamapp.core.errors import Retry
from streamapp.core.tokens import TokenFile
from streamapp.flight import address
from streamapp.flight.access import Tokens
from streamapp.flight.actions import Action, Actions
from streamapp.flight.certificate import Certificate
from streamapp.flight.feed import Feed, Source
from streamapp.flight.handlers import Handlers, Parts
from streamapp.flight.ingest import Ingest, Taker
from streamapp.flight.statements import Limits, Prepare, Statements

#: How long clients may take to read what was sent to them when the server stops.
_GRACE_S = 1.0


class FlightServer:
    """Answers while it exists; the port is open when the constructor returns.

    Args:
        reader: a new cursor on the store for each statement, as ``Store.reader``.
        host: the address to bind.
        port: 0 lets the system choose; see ``port``.
        token: what clients must send as ``authorization: Bearer TOKEN``; empty: nothing.
        read_token: one that reads only.
        admin_token: one that does everything; see :class:`streamapp.flight.access.Tokens`.
        tokens_file: more of them, with scopes.
        certificate: speak TLS with it.
        limits: for statements.
        actions: what an admin may have done, by name.
        ingest: where events go that clients send.
        live: the store, not written to while this is made: clients may follow it.
        prepare: has ready what a statement's functions need, as ``Store.prepare``.
        on_query: called with ``ok`` or the error's code for each statement, to count them.

    Raises:
        Refuse: the address cannot be bound, or others could reach it and no token is set.
    """

    def __init__(
        self,
        reader: Callable[[], duckdb.DuckDBPyConnection],
        *,
        host: str = "127.0.0.1",
        port: int = 9383,
        token: str = "",
        read_token: str = "",
        admin_token: str = "",
        tokens_file: TokenFile | None = None,
        certificate: Certificate | None = None,
        limits: Limits | None = None,
        actions: Mapping[str, Action] = {},
        ingest: Taker | None = None,
        live: Source | None = None,
        prepare: Prepare = lambda _functions, _check: None,
        on_query: Callable[[str], None] = lambda _result: None,
    ) -> None:
        self.host = host
        tokens = Tokens(token=token, read=read_token, admin=admin_token, file=tokens_file)
        tokens.roles()  # refused before anything is started
        tls = certificate is not None
        location = address.location(host, port, is_open=not tokens, tls=tls)
        reader = _telling_no_path(reader)
        self._statements = Statements(reader, limits or Limits(), prepare)
        self._feed = Feed(live) if live is not None else None
        parts = Parts(
            reader=reader,
            statements=self._statements,
            actions=Actions(actions),
            ingest=Ingest(ingest),
            feed=self._feed,
            tokens=tokens,
            on_query=on_query,
        )
        self._server: Handlers | None = Handlers(location, parts, **_tls_options(certificate))
        self.port = int(self._server.port)

    @classmethod
    def of(
        cls, settings: Settings, reader: Callable[[], duckdb.DuckDBPyConnection], **parts: Any
    ) -> Self:
        """With the address, the tokens, the certificate and the limits of the settings.

        Args:
            settings: of the store.
            reader: as for the constructor.
            parts: what else the constructor takes.

        Raises:
            Refuse: as the constructor; or a certificate's file cannot be read.
        """
        return cls(
            reader,
            host=settings.flight_host,
            port=settings.flight_port,
            token=settings.token,
            read_token=settings.flight_read_token,
            admin_token=settings.flight_admin_token,
            tokens_file=TokenFile(settings.tokens_file),
            certificate=Certificate.of(settings),
            limits=Limits(rows_max=settings.query_rows_max, seconds_max=settings.query_s_max),
            **parts,
        )

    @property
    def running(self) -> int:
        """Statements that run now."""
        return len(self._statements)

    def stop(self) -> None:
        """Interrupt what runs and close the port; harmless when it has stopped.

        gRPC waits for every call to end, for ever, and a client that does not read keeps its call
        open; pyarrow has no deadline for that.  So after a grace period those are hung up on.
        """
        server, self._server = self._server, None
        if server is None:
            return
        if self._feed is not None:
            self._feed.close()
        self._statements.close()
        closing = threading.Thread(
            target=server.shutdown, name="streamapp-flight-stop", daemon=True
        )
        closing.start()
        closing.join(_GRACE_S)
        if closing.is_alive():
            address.hang_up(self.port)
            closing.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _telling_no_path(
    reader: Callable[[], duckdb.DuckDBPyConnection],
) -> Callable[[], duckdb.DuckDBPyConnection]:
    """The store says which file is closed; clients are told that it is."""

    def told() -> duckdb.DuckDBPyConnection:
        try:
            return reader()
        except Retry as error:
            raise Retry(error.code, "the store is not open", "try again") from None

    return told


def _tls_options(certificate: Certificate | None) -> dict[str, Any]:
    if certificate is None:
        return {}
    return {"tls_certificates": [(certificate.chain, certificate.key)]}
