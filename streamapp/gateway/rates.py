"""How much one caller may ask in a window of time, and how callers are told.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11
(https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/): policies ``requests`` and
``bytes``.  A caller's window begins with its first request, so that callers do not all come back in
the same moment.  Bytes are counted when they have come: a body that goes beyond its window is owed
to the next one.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from aiohttp import web

from streamapp.gateway.config import GatewayConfig
from streamapp.gateway.problem import ProblemError

#: Callers of a kind whose windows are kept; the one seen longest ago goes first.
CALLERS_MAX = 16_384
#: An IPv6 subscriber has a network of this many bits, not an address.
_IPV6_BITS = 64


class Window:
    """What one caller has used of one window."""

    __slots__ = ("begun_s", "bytes", "requests")

    def __init__(self, begun_s: float) -> None:
        self.begun_s = begun_s
        self.requests = 0
        self.bytes = 0


class Meter:
    """One request's use of its caller's window."""

    __slots__ = ("_counted", "_rates", "_window")

    def __init__(self, rates: "Rates", window: Window) -> None:
        self._rates = rates
        self._window = window
        self._counted = 0

    def count(self, bytes_come: int) -> None:
        """Count the bytes of the body that came since it was last called."""
        self._window.bytes += bytes_come - self._counted
        self._counted = bytes_come

    def require_more(self) -> None:
        """Let a request that has no end go on.

        Raises:
            ProblemError: 429 ``request.rate``.
        """
        self._rates.require(self._window)

    def headers(self) -> Mapping[str, str]:
        """Of the answer."""
        return self._rates.headers(self._window)


#: Not there when nothing is limited.
METER = web.RequestKey("meter", Meter)


class Rates:
    """The limits of one process; each gateway process counts for itself."""

    def __init__(self, config: GatewayConfig, now_s: Callable[[], float]) -> None:
        self._requests_max = config.rate_requests_max
        self._bytes_max = config.rate_bytes_max
        self._window_s = config.rate_window_s
        self._now_s = now_s
        self._by_name: OrderedDict[str, Window] = OrderedDict()
        self._by_address: OrderedDict[str, Window] = OrderedDict()
        self._policy = ", ".join(
            f'"{name}";q={most}{unit};w={self._window_s}'
            for name, most, unit in (
                ("requests", self._requests_max, ""),
                ("bytes", self._bytes_max, ';qu="content-bytes"'),
            )
            if most
        )

    def __bool__(self) -> bool:
        return bool(self._policy)

    def take(self, name: str, address: str) -> Meter:
        """Count one request of a token's holder, or of an address when ``name`` is "".

        Raises:
            ProblemError: 429 ``request.rate``; nothing was counted.
        """
        window = self._window(name, address)
        self.require(window, requests=1)
        window.requests += 1
        return Meter(self, window)

    def require(self, window: Window, *, requests: int = 0) -> None:
        """Let a caller go on, or say when it may.

        Raises:
            ProblemError: 429 ``request.rate``.
        """
        self._turn(window)
        over = []
        if self._requests_max and window.requests + requests > self._requests_max:
            over.append("requests")
        if self._bytes_max and window.bytes >= self._bytes_max:
            over.append("bytes")
        if over:
            wait_s = self._left_s(window)
            raise ProblemError(
                429,
                "request.rate",
                f"the {' and '.join(over)} of this window of {self._window_s} s are used up",
                f"wait {wait_s} s; STREAMAPP_RATE_{over[0].upper()}_MAX sets the limit",
                {**self.headers(window), "Retry-After": str(wait_s)},
            )

    def headers(self, window: Window) -> Mapping[str, str]:
        """``RateLimit-Policy`` and ``RateLimit`` of an answer."""
        left_s = self._left_s(window)
        limits = ", ".join(
            f'"{name}";r={max(0, most - used)};t={left_s}'
            for name, most, used in (
                ("requests", self._requests_max, window.requests),
                ("bytes", self._bytes_max, window.bytes),
            )
            if most
        )
        return {"RateLimit-Policy": self._policy, "RateLimit": limits}

    def _window(self, name: str, address: str) -> Window:
        windows = self._by_name if name else self._by_address  # strangers push out no tokens
        key = name or network_of(address)
        window = windows.pop(key, None) or Window(self._now_s())
        windows[key] = window
        if len(windows) > CALLERS_MAX:
            windows.popitem(last=False)
        return window

    def _turn(self, window: Window) -> None:
        """Begin the next window when this one is over; bytes beyond it are owed."""
        now_s = self._now_s()
        passed = int((now_s - window.begun_s) / self._window_s)
        if passed > 0:
            window.begun_s, window.requests = now_s, 0
            window.bytes = max(0, window.bytes - passed * self._bytes_max)

    def _left_s(self, window: Window) -> int:
        return max(1, math.ceil(window.begun_s + self._window_s - self._now_s()))


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Whom an address counts for: itself, or in IPv6 its subscriber's network."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:  # a socket without one
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> (128 - _IPV6_BITS) << (128 - _IPV6_BITS)))
