"""Faust's codecs ``arrow`` and ``cloudevents``, by entry point, and a schema that sees headers too.

Any Faust app names them, ours or not::

    app.topic("events.enriched", value_serializer="arrow")   # each value: a pyarrow.RecordBatch
    app.topic("partners", value_serializer="cloudevents")    # structured CloudEvents: dicts
    app.topic("events.raw", schema=CloudEventSchema())       # both modes: dicts
"""

import base64
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import faust
import msgspec
from faust.exceptions import ValueDecodeError
from faust.serializers.codecs import Codec

if TYPE_CHECKING:
    import pyarrow as pa

#: CloudEvents 1.0.2, Kafka protocol binding, sections 3.2 and 3.3.
CE_PREFIX = "ce_"
STRUCTURED = "application/cloudevents+json"
REQUIRED = ("id", "source", "type")

_json = msgspec.json.Decoder()


class Arrow(Codec):
    """Arrow IPC streams and record batches.

    Of an enriched record (three streams one after the other) it reads the rows: the first stream.
    A record that answers for no event (all rejected, a snapshot of state) is a batch of no rows.
    """

    def _loads(self, s: bytes) -> "pa.RecordBatch":
        import pyarrow as pa

        try:
            with pa.ipc.open_stream(pa.py_buffer(s)) as reader:
                table = reader.read_all()
            table.validate(full=True)  # Arrow trusts offsets, and would read beyond the value
            batches = table.combine_chunks().to_batches()
        # A damaged length makes Arrow ask for memory that no machine has.
        except (pa.ArrowException, MemoryError, OSError) as error:
            raise ValueError(f"the value is no Arrow IPC stream: {error}") from None
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)

    def _dumps(self, s: Any) -> bytes:
        """A RecordBatch or a Table as one lz4 stream."""
        import pyarrow as pa

        if not isinstance(s, pa.RecordBatch | pa.Table):
            raise TypeError(f"value_serializer 'arrow' takes a RecordBatch or a Table, not {s!r}")
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(sink, s.schema, options=options) as writer:
            writer.write(s)
        value: bytes = sink.getvalue().to_pybytes()
        return value


class CloudEvents(Codec):
    """CloudEvents in structured mode (``application/cloudevents+json``), as dicts.

    A codec sees values only.  So an event in binary mode, as our raw topics hold, comes as the JSON
    object that is its data, without what its headers say; :class:`CloudEventSchema` reads both.
    """

    def _loads(self, s: bytes) -> dict[str, Any]:
        return _structured(s)

    def _dumps(self, s: Any) -> bytes:
        return _to_structured(s)


class CloudEventSchema(faust.Schema):
    """Topics of CloudEvents: each value is a dict of attributes and ``data``, whatever the mode.

    Binary mode puts attributes in ``ce_*`` headers and ``data`` in the value.  What is sent to such
    a topic goes in binary mode, which is what our raw topics and most others take; ``data`` that is
    not bytes is written as JSON.
    """

    def loads_value(self, _app: Any, message: Any, **_options: Any) -> dict[str, Any] | None:
        """The event; None for a tombstone.

        Raises:
            ValueDecodeError: it is no CloudEvent.
        """
        if message.value is None:
            return None
        try:
            return _event(_said(message.headers), message.value)
        except ValueError as error:
            raise ValueDecodeError(str(error)) from error

    def dumps_value(
        self, _app: Any, value: Any, *, headers: Any, **_options: Any
    ) -> tuple[bytes | None, Any]:
        """The data, and the attributes in the headers."""
        if value is None:
            return None, headers
        event = _checked(value)
        data = event.pop("data", None)
        plain = "application/octet-stream" if isinstance(data, bytes) else "application/json"
        ours = {"content-type": str(event.pop("datacontenttype", None) or plain).encode()}
        for name, said in event.items():
            if said is not None:
                ours[CE_PREFIX + name] = _text(said).encode()
        others = {name: said for name, said in _pairs(headers) if name.lower() not in ours}
        merged = {**others, **ours}
        body = data if isinstance(data, bytes) else msgspec.json.encode(data)
        return body, merged if isinstance(headers, Mapping) else list(merged.items())


def _event(headers: Mapping[str, bytes], value: bytes) -> dict[str, Any]:
    media = headers.get("content-type", b"").decode()
    attributes = {
        name[len(CE_PREFIX) :]: said.decode()
        for name, said in headers.items()
        if name.startswith(CE_PREFIX)
    }
    kind = media.partition(";")[0].strip().lower()
    if not attributes or kind == STRUCTURED:
        return _structured(value)
    event: dict[str, Any] = {"specversion": "1.0", **attributes}
    if media:
        event["datacontenttype"] = media
    event["data"] = _decoded(value) if not kind or kind.endswith("json") else value
    return event


def _structured(value: bytes) -> dict[str, Any]:
    event = _decoded(value)
    if not isinstance(event, dict):
        raise ValueError(f"a CloudEvent is a JSON object, not {type(event).__name__}")  # noqa: TRY004  # a bad value
    if "data_base64" in event:
        coded = event.pop("data_base64")
        if not isinstance(coded, str):
            raise ValueError(f"data_base64 is a string, not {type(coded).__name__}")
        event["data"] = base64.b64decode(coded, validate=True)
    return event


def _decoded(value: bytes) -> Any:
    """The JSON value; every way in which it is none is a ValueError, as Faust expects."""
    try:
        return _json.decode(value)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"the value is no JSON: {error}") from None


def _to_structured(value: Any) -> bytes:
    event = {name: _plain(said) for name, said in _checked(value).items()}
    if isinstance(event.get("data"), bytes):
        event["data_base64"] = base64.b64encode(event.pop("data")).decode()
    return msgspec.json.encode(event)


def _checked(value: Any) -> dict[str, Any]:
    """A copy that says its ``specversion``."""
    if not isinstance(value, Mapping) or any(value.get(name) is None for name in REQUIRED):
        raise ValueError(
            f"a CloudEvent is a dict with {', '.join(REQUIRED)}; not so {value!r:.200}"
        )
    return {"specversion": "1.0", **value}


def _plain(said: Any) -> Any:
    return said.isoformat() if isinstance(said, datetime) else said


def _text(said: Any) -> str:
    """An attribute in its canonical string form (CloudEvents 1.0.2, section "Type System")."""
    plain = _plain(said)
    return str(plain).lower() if isinstance(plain, bool) else str(plain)


def _said(headers: Any) -> dict[str, bytes]:
    """Headers by name in lower case, for producers differ; Kafka's null ones say nothing."""
    return {name.lower(): said for name, said in _pairs(headers) if said is not None}


def _pairs(headers: Any) -> Iterable[tuple[str, bytes | None]]:
    """Headers as Faust has them: none, a mapping, or pairs."""
    return headers.items() if isinstance(headers, Mapping) else headers or ()
