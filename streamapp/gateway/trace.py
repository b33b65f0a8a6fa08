"""W3C trace context: taken from the request, put on every record that it becomes.

https://www.w3.org/TR/trace-context/  The headers keep their names on the record, as OpenTelemetry's
Kafka clients write them.  A CloudEvent's own ``traceparent`` (its Distributed Tracing extension)
says where the event began, stays an attribute, and is ``ce_traceparent`` there.
"""

import re

from multidict import CIMultiDictProxy, istr

from streamapp.core.slice import Headers

#: Section 3.3.1.5: what is longer may be dropped.
TRACESTATE_CHARS_MAX = 512
_TRACEPARENT = istr("traceparent")
_PARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,128})?"
)
_STATE = re.compile(r"[ -~]+")


def trace_headers(headers: CIMultiDictProxy[str]) -> Headers:
    """``traceparent`` and ``tracestate`` for a record; nothing when there is no valid one.

    What is not valid is left out, as the specification asks (section 3.2.2.5): a request is never
    refused for its trace.
    """
    parents = headers.getall(_TRACEPARENT, ())
    if len(parents) != 1:
        return ()
    parent = parents[0].strip()
    match = _PARENT.fullmatch(parent)
    if match is None or (match[1] == "00" and match[2] is not None):
        return ()
    trace = [("traceparent", parent.encode())]
    state = ",".join(part for part in headers.getall("tracestate", ()) if part.strip())
    if 0 < len(state) <= TRACESTATE_CHARS_MAX and _STATE.fullmatch(state):
        trace.append(("tracestate", state.encode()))
    return trace
