"""The contenders behind one small interface, each as its own user would write it.

A reader hands out arrays that are its caller's own.
"""

import ctypes
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ring.rows import RECORD_BYTES, Shape, sent_ns
from ring.seqlock import SeqlockReader, SeqlockWriter

from streamapp.ring import RingReader, RingSpec, RingWriter


class Writer(Protocol):
    """Writes a batch; ``wake`` says that a reader may be asleep."""

    def write(self, records: Any, vectors: Any) -> object: ...
    def close(self) -> None: ...


class Reader(Protocol):
    """Reads up to a batch, in order; what is found has no rows, or is None, when there is nothing."""

    lost: int

    @property
    def read(self) -> Callable[[], Any]: ...
    def next(self, timeout_s: float) -> Any: ...
    def rows(self, found: Any) -> int: ...
    def sent_ns(self, found: Any) -> int: ...
    def close(self) -> None: ...


class Pairs:
    """For readers of (records, vectors) that wait apart from reading."""

    def next(self, timeout_s: float) -> Any:
        found = self.read()
        if found is None:
            self.wait(timeout_s)
            found = self.read()
        return found

    def rows(self, found: Any) -> int:
        return 0 if found is None else len(found[1])

    def sent_ns(self, found: Any) -> int:
        return sent_ns(found[0])


class OursWriter:
    def __init__(self, name: str, shape: Shape, *, wake: bool = True) -> None:
        self.path = f"/dev/shm/{name}"
        del wake  # it wakes who may be asleep
        self._ring = RingWriter.open(self.path, RingSpec(shape.dim, shape.capacity))
        self.write = self._ring.write

    def close(self) -> None:
        self._ring.close()
        for path in (self.path, f"{self.path}.lock"):
            Path(path).unlink()


class OursReader:
    def __init__(self, name: str, shape: Shape) -> None:
        self._ring = RingReader.open(f"/dev/shm/{name}", start="latest")
        self.read = partial(self._ring.read, shape.batch)
        self.next = partial(self._ring.read, shape.batch)  # and a timeout
        self.rows = len
        self.close = self._ring.close

    @property
    def lost(self) -> int:
        return self._ring.lost

    def sent_ns(self, frames: Any) -> int:
        return sent_ns(frames.records)


class IceoryxWriter:
    """Loan, copy in, send; with ``wake`` also a notification of the service's event."""

    def __init__(self, name: str, shape: Shape, *, wake: bool = True) -> None:
        self._node, rows, event = _iceoryx(name, shape)
        self._rows = rows.publisher_builder().initial_max_slice_len(shape.row_bytes * shape.batch)
        self._port = self._rows.create()
        self._event = event.notifier_builder().create() if wake else None
        self._bytes = shape.row_bytes * shape.batch
        self._split = RECORD_BYTES * shape.batch
        self._window = ctypes.c_uint8 * self._bytes

    def write(self, records: Any, vectors: Any) -> None:
        sample = self._port.loan_slice_uninit(self._bytes)
        into = np.frombuffer(self._window.from_address(sample.payload_ptr), np.uint8)
        into[: self._split] = records.view("u1")
        into[self._split :].view("<f4")[:] = vectors.reshape(-1)
        sample.assume_init().send()
        if self._event is not None:
            self._event.notify()

    def close(self) -> None:
        self._port.delete()


class IceoryxReader(Pairs):
    """Receive and copy out, so that the sample can go back to the writer."""

    def __init__(self, name: str, shape: Shape) -> None:
        import iceoryx2

        self._node, rows, event = _iceoryx(name, shape)
        self._port = rows.subscriber_builder().buffer_size(_queued(shape)).create()
        self._event = event.listener_builder().create()
        self._seconds = iceoryx2.Duration.from_secs_f64
        self._shape = shape
        self._window = ctypes.c_uint8 * (shape.row_bytes * shape.batch)
        self._split = RECORD_BYTES * shape.batch
        self.lost = 0  # it drops the oldest and does not say how many

    def read(self) -> tuple[Any, Any] | None:
        sample = self._port.receive()
        if sample is None:
            return None
        whole = np.frombuffer(self._window.from_address(sample.payload_ptr), np.uint8).copy()
        records = whole[: self._split].reshape(-1, RECORD_BYTES)
        return records, whole[self._split :].view("<f4").reshape(-1, self._shape.dim)

    def wait(self, timeout_s: float) -> None:
        if not self._port.has_samples():
            self._event.timed_wait(self._seconds(timeout_s))

    def close(self) -> None:
        self._port.delete()


def _queued(shape: Shape) -> int:
    """Batches that a queue holds: as many rows as the ring, as far as 64 MB allow."""
    fits = (64 << 20) // (shape.row_bytes * shape.batch)
    return max(2, min(shape.capacity // shape.batch, fits, 1024))


def _iceoryx(name: str, shape: Shape) -> tuple[Any, Any, Any]:
    import iceoryx2 as ice

    ice.set_log_level(ice.LogLevel.Error)
    node = ice.NodeBuilder.new().create(ice.ServiceType.Ipc)
    rows = node.service_builder(ice.ServiceName.new(name)).publish_subscribe(
        ice.Slice[ctypes.c_uint8]
    )
    rows = rows.max_publishers(1).max_subscribers(8).enable_safe_overflow(True).history_size(0)
    rows = rows.subscriber_max_buffer_size(_queued(shape)).payload_alignment(ice.Alignment.new(64))
    event = node.service_builder(ice.ServiceName.new(f"{name}-event")).event()
    return node, rows.open_or_create(), event.open_or_create()


class ZmqWriter:
    """PUB over ipc; what a slow reader's queue cannot hold is dropped for it."""

    def __init__(self, name: str, shape: Shape, *, wake: bool = True) -> None:
        import zmq

        del wake  # it always does
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, _queued(shape))
        self._socket.bind(f"ipc:///tmp/{name}.zmq")
        self._name = name

    def write(self, records: Any, vectors: Any) -> None:
        self._socket.send_multipart([records.view("u1"), vectors], copy=False)

    def close(self) -> None:
        self._socket.close()


class ZmqReader(Pairs):
    """SUB over ipc; the arrays are views of the received messages, which nobody else has."""

    def __init__(self, name: str, shape: Shape) -> None:
        import zmq

        self._zmq, self._shape = zmq, shape
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, _queued(shape))
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(f"ipc:///tmp/{name}.zmq")
        self.lost = 0  # it drops the newest and does not say how many

    def read(self) -> tuple[Any, Any] | None:
        try:
            records, vectors = self._socket.recv_multipart(self._zmq.DONTWAIT, copy=False)
        except self._zmq.Again:
            return None
        found = np.frombuffer(vectors, "<f4").reshape(-1, self._shape.dim)
        return np.frombuffer(records, "u1").reshape(-1, RECORD_BYTES), found

    def wait(self, timeout_s: float) -> None:
        self._socket.poll(int(timeout_s * 1000))

    def close(self) -> None:
        self._socket.close()


class PollingReader(Pairs, SeqlockReader):
    """Waits by looking again and again."""


class PlainSeqlockWriter(SeqlockWriter):
    """Nobody can be woken."""

    def __init__(self, name: str, shape: Shape, *, wake: bool = True) -> None:
        del wake
        super().__init__(name, shape)


Opens = tuple[Callable[..., Writer], Callable[[str, Shape], Reader]]
PEERS: dict[str, Opens] = {
    "ours": (OursWriter, OursReader),
    "seqlock": (PlainSeqlockWriter, PollingReader),
    "seqlock 1 ms": (PlainSeqlockWriter, partial(PollingReader, poll_s=0.001)),
    "iceoryx2": (IceoryxWriter, IceoryxReader),
    "zmq": (ZmqWriter, ZmqReader),
}
#: zmq connects in the background: what is sent before is for nobody.
CONNECT_S_MAX = 10.0


def connect(write: Callable[[], object], reader: Reader) -> None:
    """Write until the reader has got something, and then read what is there."""
    end_s = time.monotonic() + CONNECT_S_MAX
    write()
    while not reader.rows(reader.next(0.05)):
        if time.monotonic() > end_s:
            raise TimeoutError("nothing arrives")
        write()
    while reader.rows(reader.read()):
        pass
