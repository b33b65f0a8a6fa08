"""Arrow IPC streams as clients send them, and what the gateway makes of them."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.ipc
from taken import each

from streamapp.gateway import GatewayConfig, arrow, plain
from streamapp.gateway.budget import Budget

RECEIVED_US = 1_700_000_000_000_000
MOMENT = datetime(2026, 11, 22, 9, 30, 0, 123456, UTC)


def stream(*batches, compression=None):
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, allow_64bit=True)
    with pa.ipc.new_stream(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write(batch)
    return sink.getvalue().to_pybytes()


def table(rows, **types):
    """Of dicts, with explicit types for some columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table(
        {name: pa.array([row.get(name) for row in rows], types.get(name)) for name in names}
    )


def made(body, key="k"):
    """(row, outcome) of every row of a stream."""
    lease = Budget(events_max=1 << 40, bytes_max=1 << 40).lease()
    making = plain.Making("/v1/events", RECEIVED_US, 1 << 20, ())
    return list(each(arrow.groups(body, lease, making, config=GatewayConfig(), id_prefix=key)))


def bomb():
    """A compressed column of 24 MB in a few KB."""
    return stream(pa.table({"message": ["x" * (24 << 20)]}), compression="zstd")
