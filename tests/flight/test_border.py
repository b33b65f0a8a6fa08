"""Whose fault an error is: a client's message is told apart from an error of ours, which is logged."""

import pyarrow as pa
import pytest
from pyarrow import flight

from streamapp.flight import wire
from streamapp.flight.border import as_flight_errors

OURS = [
    ValueError("ours"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "ours"),
    pa.ArrowInvalid("x"),
]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_an_error_of_ours_is_internal_and_logged(error, caplog):
    failed = pytest.raises(flight.FlightInternalError, match="the server failed")
    with failed as caught, as_flight_errors():
        raise error
    assert b"flight.internal" in caught.value.extra_info
    assert [record.exc_info[1] for record in caplog.records] == [error]


@pytest.mark.parametrize("error", OURS, ids=lambda error: type(error).__name__)
def test_so_it_is_over_the_wire(serve, error, caplog):
    def act(arguments):
        del arguments
        raise error

    server = serve(options={"actions": {"act": act}})
    with server.client() as client, pytest.raises(flight.FlightInternalError, match="see its log"):
        list(client.do_action(flight.Action("streamapp.act", b"{}")))
    assert [record.exc_info[1] for record in caplog.records] == [error]


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xfe",
        wire.pack("TicketStatementQuery", (1, b"\xff\xfe")),
        wire.pack("CommandGetTables", (3, b"\xff")),
        wire.pack("CommandGetSqlInfo", (1, b"\xff\xff\xff")),
    ],
)
def test_a_message_that_cannot_be_read_is_the_clients(served, message, caplog):
    refused = pytest.raises(flight.FlightServerError, match="not one of Flight SQL")
    with served.client() as client, refused as caught:
        client.do_get(flight.Ticket(message)).read_all()
    assert b"flight.message" in caught.value.extra_info
    assert not caplog.records


def bind(client, column):
    """Bind one parameter to ``SELECT ?``."""
    body = wire.pack("ActionCreatePreparedStatementRequest", (1, "SELECT ? AS a"))
    (result,) = client.do_action(flight.Action("CreatePreparedStatement", body))
    handle = wire.first_bytes(wire.unpack(result.body.to_pybytes())[1], 1)
    command = wire.pack("CommandPreparedStatementQuery", (1, handle))
    batch = pa.record_batch({"a": column})
    writer, answers = client.do_put(flight.FlightDescriptor.for_command(command), batch.schema)
    with writer:
        writer.write_batch(batch)
        writer.done_writing()
        answers.read()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.array([1 << 62], pa.timestamp("us")), "out of range"),
        (
            pa.StringArray.from_buffers(
                1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")
            ),
            "cannot be read: .*UTF8",
        ),
    ],
)
def test_parameters_that_cannot_be_read_are_the_clients(served, column, says, caplog):
    with served.client() as client, pytest.raises(flight.FlightServerError, match=says):
        bind(client, column)
    assert not caplog.records
