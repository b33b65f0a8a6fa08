"""Clients of a log by its URL."""

from streamapp.core.errors import Refuse
from streamapp.transport.clients import Admin, Members, Producer, Reader
from streamapp.transport.local.clients import LocalAdmin, LocalProducer, LocalReader
from streamapp.transport.local.members import LocalMembers
from streamapp.transport.security import PLAINTEXT, Security

_LOCAL = "local"
#: The second is Faust's own; for a client there is no difference.
_KAFKA = ("kafka+batch", "kafka")


def open_producer(url: str, security: Security | None = None) -> Producer:
    """A producer for the log at ``url``; start it before use.

    Args:
        url: ``local:///path`` or ``kafka+batch://host:port[,host:port...]``.
        security: how to connect to Kafka; in the clear without it.

    Raises:
        Refuse: no log has such a URL, or the local one has no use for ``security``.
    """
    if _is_local(url, security):
        return LocalProducer(url)
    from streamapp.transport.kafka.producer import KafkaProducer

    return KafkaProducer(url, security)


def open_reader(url: str, security: Security | None = None) -> Reader:
    """A reader, as :func:`open_producer`."""
    if _is_local(url, security):
        return LocalReader(url)
    from streamapp.transport.kafka.reader import KafkaReader

    return KafkaReader(url, security)


def open_admin(
    url: str, security: Security | None = None, *, replication: int | None = None
) -> Admin:
    """An admin client, as :func:`open_producer`.

    ``replication`` is the number of copies of a topic that is created on Kafka; None: as many as
    its brokers are set to keep.
    """
    if _is_local(url, security):
        return LocalAdmin(url)
    from streamapp.transport.kafka.admin import KafkaAdmin

    return KafkaAdmin(url, security, replication=replication)


def open_members(url: str, security: Security | None = None) -> Members:
    """A maker of members of consumer groups, as :func:`open_producer`."""
    if _is_local(url, security):
        return LocalMembers(url)
    from streamapp.transport.kafka.members import KafkaMembers

    return KafkaMembers(url, security)


def _is_local(url: str, security: Security | None) -> bool:
    scheme = url.partition("://")[0]
    if scheme in _KAFKA:
        return False
    if scheme != _LOCAL:
        kafka = ", ".join(f"{name}://host:9092" for name in _KAFKA)
        fix = f"these work: {_LOCAL}:///path, {kafka}"
        raise Refuse("broker.scheme", f"no log client for {url!r}", fix)
    if security not in {None, PLAINTEXT}:
        raise Refuse(
            "broker.security",
            "the embedded log has no users and no TLS, but a setting asks for one",
            "unset STREAMAPP_BROKER_SECURITY and its like, or name a Kafka with STREAMAPP_BROKER",
        )
    return True
