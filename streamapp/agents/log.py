"""The log of somebody's Faust app, for our clients: where it is, and how they are let in."""

from typing import Any, NamedTuple

from streamapp.core.errors import Refuse
from streamapp.transport import Admin, Producer, Reader, open_admin, open_producer, open_reader
from streamapp.transport.security import Security

#: Ours, and Faust's own drivers by all their names.
_KAFKA = ("kafka+batch", "kafka", "aiokafka", "confluent")


class AppLog(NamedTuple):
    """Opens clients of one log; start each before use."""

    url: str
    security: Security | None

    def producer(self) -> Producer:
        """As ``transport.open_producer``."""
        return open_producer(self.url, self.security)

    def reader(self) -> Reader:
        """As ``transport.open_reader``."""
        return open_reader(self.url, self.security)

    def admin(self) -> Admin:
        """As ``transport.open_admin``."""
        return open_admin(self.url, self.security)


def log_of(app: Any) -> AppLog:
    """The log that the app's ``broker`` names; Faust's own Kafka transports read the same one.

    Raises:
        Refuse: it is neither Kafka nor the embedded log; or it names a user, and is not repeated
            then, so that no password reaches a log.
    """
    urls = app.conf.broker
    if any(url.raw_user or url.raw_password for url in urls):
        raise Refuse(
            "broker.userinfo",
            f"the broker URL {urls[0].scheme}://... names a user, and URLs end up in logs",
            "give broker_credentials=faust.SASLCredentials(...) to the app instead",
        )
    if urls[0].scheme == "local":
        return AppLog(f"local://{urls[0].raw_path}", None)
    if urls[0].scheme not in _KAFKA or not all(url.host for url in urls):
        raise Refuse(
            "install.broker",
            f"streamapp.install cannot work on broker {str(urls[0])!r}",
            "use local:///path, kafka+batch://host:9092, or Faust's own kafka://host:9092",
        )
    from streamapp.transport.kafka.credentials import security_of

    hosts = ",".join(f"{_host(url.host)}:{url.port or 9092}" for url in urls)
    return AppLog(f"kafka+batch://{hosts}", security_of(app))


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
