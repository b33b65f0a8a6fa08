"""A client of a running store: rows, admin actions; errors in our words."""

import contextlib
import json
import re
import ssl
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
from pyarrow import flight

from streamapp.core.config import Settings, reachable
from streamapp.core.errors import Halt, Refuse, Reject, Retry, StreamappError
from streamapp.flight import address, wire
from streamapp.flight.actions import PREFIX

#: What pyarrow puts round a server's message.
_WRAPPING = re.compile(
    r"^Flight .*?, with message: |\. (Detail|gRPC client debug context|Client context): "
)
_KINDS = {"refuse": Refuse, "retry": Retry, "reject": Reject, "halt": Halt}
#: Admin actions take as long as the store is large.
_ACTION_S_MAX = 86_400.0


class Client:
    """Calls to one store; each makes a connection of its own, so any thread may call.

    Args:
        host: where the store listens.
        port: its Flight port.
        token: the store's bearer token; empty when it asks for none.
        ca_file: PEM of the authorities to trust; the connection is TLS when it is given.
        timeout_s: for a whole answer.
        setting: which one says the token, for who has a wrong one.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: str = "",
        *,
        ca_file: Path | None = None,
        timeout_s: float = 120.0,
        setting: str = "token",
    ) -> None:
        self.where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = address.url(host, port, tls=ca_file is not None)
        self._ca_file = ca_file
        self._headers = [(b"authorization", wire.bearer(token))] if token else []
        self._timeout_s = timeout_s
        self._setting = setting

    @classmethod
    def of(cls, settings: Settings, *, admin: bool = False) -> Self:
        """A client of the store that the settings describe.

        Args:
            settings: its address, tokens and TLS.
            admin: for admin actions: with the admin token, if there is one.
        """
        names = ["token", "flight_read_token", "flight_admin_token"]
        names = names[::-1] if admin else names
        setting = next((name for name in names if getattr(settings, name)), names[0])
        return cls(
            reachable(settings.flight_host),
            settings.flight_port,
            getattr(settings, setting),
            ca_file=settings.flight_ca_file or settings.flight_cert_file,
            setting=setting,
        )

    def query(self, sql: str) -> pa.Table:
        """All rows of a statement.

        Raises:
            Refuse: the statement is wrong or not allowed, or the token is.
            Retry: nothing answers there, or not in time.
        """
        with self.stream(sql) as reader:
            return reader.read_all()

    @contextlib.contextmanager
    def stream(self, sql: str) -> Iterator[pa.RecordBatchReader]:
        """The rows of a statement as they come; leaving the block cancels the rest.

        Raises:
            Refuse: as ``query``; reading raises it too.
            Retry: as ``query``.
        """
        try:
            ticket = flight.Ticket(sql.encode())
        except UnicodeEncodeError:
            raise Refuse("sql.text", "the statement is not UTF-8", "write it as UTF-8") from None
        with self._connected() as client, contextlib.ExitStack() as stack:
            with self._as_ours():
                answer = client.do_get(ticket, self._options(self._timeout_s))
                stack.callback(answer.cancel)
                schema = answer.schema
            yield pa.RecordBatchReader.from_batches(schema, self._batches(answer))

    def action(self, name: str, /, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Have the store do something; what it says as it goes, ``done`` in the last.

        Args:
            name: of the action, without ``streamapp.``.
            arguments: what the action takes; anything JSON has.

        Raises:
            Refuse: the action is unknown, refuses, or takes another token.
            Retry: nothing answers there, or the action says try again.
        """
        body = json.dumps(arguments).encode()
        with self._connected() as client, self._as_ours():
            results = client.do_action(
                flight.Action(PREFIX + name, body), self._options(_ACTION_S_MAX)
            )
            for result in results:
                yield json.loads(result.body.to_pybytes())

    def follow(
        self,
        start: str | Mapping[str, int] = "now",
        *,
        where: str = "",
        columns: Sequence[str] = (),
    ) -> Generator[tuple[pa.RecordBatch, dict[str, int]], None, None]:
        """New rows as they are stored, and after each batch where to go on; never ends by itself.

        Args:
            start: ``now``, ``beginning``, or where another call stood.
            where: one condition, as after WHERE.
            columns: names; all when empty.  The source address always comes first.

        Raises:
            Refuse: the condition, a column or the token is wrong.
            Retry: nothing answers there, or it stopped: follow again from where this stood.
        """
        asked = {"from": start, "where": where, "columns": list(columns)}
        ticket = flight.Ticket(json.dumps({"live": asked}).encode())
        with self._connected() as client, self._as_ours():
            answer = client.do_get(ticket, self._options(None))
            try:
                for chunk in answer:
                    yield chunk.data, json.loads(chunk.app_metadata.to_pybytes())["next"]
            finally:
                answer.cancel()

    def _batches(self, answer: flight.FlightStreamReader) -> Iterator[pa.RecordBatch]:
        # Arrow's own to_reader() would lose the kind and the code of an error.
        with self._as_ours():
            for chunk in answer:
                yield chunk.data

    def _as_ours(self) -> contextlib.AbstractContextManager[None]:
        return as_ours(self.where, self._setting)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[flight.FlightClient]:
        with contextlib.ExitStack() as stack:
            with self._as_ours():
                client = stack.enter_context(flight.connect(self._url, **self._trust()))
            yield client

    def _trust(self) -> Mapping[str, Any]:
        if self._ca_file is None:
            return {}
        try:
            # gRPC would say on stderr what is wrong with it, and to us that nothing answers.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(self._ca_file)
            return {"tls_root_certs": self._ca_file.read_bytes()}
        except ssl.SSLError:
            raise Refuse(
                "flight.certificate",
                f"{self._ca_file} has no certificate of an authority",
                "give a PEM file (flight_ca_file)",
            ) from None
        except OSError as error:
            raise Refuse(
                "flight.certificate", f"{self._ca_file}: {error.strerror}", "check the path"
            ) from None

    def _options(self, timeout_s: float | None) -> flight.FlightCallOptions:
        return flight.FlightCallOptions(timeout=timeout_s, headers=self._headers)


def query(host: str, port: int, sql: str, token: str = "", *, timeout_s: float = 120.0) -> pa.Table:
    """All rows of a statement; see :class:`Client`."""
    return Client(host, port, token, timeout_s=timeout_s).query(sql)


def stream(
    host: str, port: int, sql: str, token: str = "", *, timeout_s: float = 120.0
) -> contextlib.AbstractContextManager[pa.RecordBatchReader]:
    """The rows of a statement as they come; see :class:`Client`."""
    return Client(host, port, token, timeout_s=timeout_s).stream(sql)


@contextlib.contextmanager
def as_ours(where: str, setting: str = "token") -> Iterator[None]:
    """Flight's errors as ours; ``setting`` says the token that is shown."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise _ours(error, where, setting) from None


def _ours(error: Exception, where: str, setting: str) -> StreamappError:
    about = _about(error)
    code, fix = about.get("code", ""), about.get("fix", "")
    message = _plain(str(error)).removesuffix(f" ({fix})")
    if code == "flight.token":
        fix = f"set STREAMAPP_{setting.upper()} to the store's"
        return Refuse("flight.token", f"{where}: {message}", fix)
    if code:
        said = message if code.startswith("sql.") else f"{where}: {message}"
        return _KINDS.get(about.get("kind", ""), Retry)(code, said, fix)
    return _unsaid(error, message, where)


def _unsaid(error: Exception, message: str, where: str) -> StreamappError:
    """What no server of ours said."""
    if isinstance(error, flight.FlightUnavailableError):
        if "parsing HTTP/2" in str(error):  # gRPC's words
            what, fix = f"what answers at {where} is no Flight server", "is the port the store's?"
            return Retry("flight.unreachable", what, fix)
        return Retry("flight.unreachable", f"nothing answers at {where}", "streamapp up")
    if isinstance(error, flight.FlightTimedOutError):
        return Retry("flight.timeout", f"{where} did not answer in time", "ask for less, or wait")
    if "Cannot parse URI" in message:
        return Refuse("flight.address", f"{where} is no address", "check flight_host")
    return Retry("flight.failed", f"{where}: {message}", "see the store's log")


def _about(error: Exception) -> dict[str, str]:
    try:
        about = json.loads(getattr(error, "extra_info", b"") or b"{}")
    except ValueError:  # another server's
        return {}
    return about if isinstance(about, dict) else {}


def _plain(text: str) -> str:
    """The server's own words."""
    for part in _WRAPPING.split(text):
        if part and part not in {"Detail", "gRPC client debug context", "Client context"}:
            return part
    return text
