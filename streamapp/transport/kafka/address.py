"""The URL of a Kafka cluster: ``kafka+batch://host[:port][,host[:port]...]``.

``urllib`` reads one host per URL, so this reads them itself; an IPv6 address stands in brackets.
"""

import re

from streamapp.core.errors import Refuse

PORT = 9092
HOSTS_MAX = 64
_HOST = re.compile(
    r"(?P<host> \[[0-9A-Fa-f:.]+(%[0-9A-Za-z._-]+)?\] | [0-9A-Za-z]([0-9A-Za-z._-]*) )"
    r"(:(?P<port>[0-9]{1,5}))?",
    re.VERBOSE | re.ASCII,
)
_FIX = "write kafka+batch://host:9092, with more hosts after commas"


def hosts_of(url: str) -> tuple[str, ...]:
    """Every ``host:port`` of a cluster's URL, in order, without repetition.

    Raises:
        Refuse: not such a URL.  One with a user name is refused without being repeated, so that no
        password reaches a log.
    """
    scheme, separator, rest = url.partition("://")
    if "@" in url:
        raise Refuse(
            "broker.userinfo",
            f"the URL {scheme}://... names a user, and URLs end up in logs",
            "set STREAMAPP_BROKER_USERNAME, STREAMAPP_BROKER_PASSWORD and"
            " STREAMAPP_BROKER_SECURITY instead",
        )
    if not separator:
        raise _refusal(url, "it has no ://")
    parts = rest.removesuffix("/").split(",")
    if len(parts) > HOSTS_MAX:
        raise Refuse("broker.url", f"{len(parts)} hosts in one URL", f"name {HOSTS_MAX} at most")
    return tuple(dict.fromkeys(_host(url, part) for part in parts))


def _host(url: str, part: str) -> str:
    found = _HOST.fullmatch(part)
    if found is None:
        raise _refusal(url, f"{part!r} is no host" if part else "a host is missing")
    port = int(found["port"] or PORT)
    if not 1 <= port <= 65535:
        raise _refusal(url, f"{port} is no port")
    return f"{found['host'].lower()}:{port}"


def _refusal(url: str, why: str) -> Refuse:
    return Refuse("broker.url", f"not the URL of a Kafka cluster: {url!r}: {why}", _FIX)
