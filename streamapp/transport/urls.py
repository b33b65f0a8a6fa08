"""Clients of a log by its URL."""

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from streamapp.core.errors import Refuse
from streamapp.transport.clients import Admin, Producer, Reader
from streamapp.transport.local.clients import LocalAdmin, LocalProducer, LocalReader

Client = TypeVar("Client")

_PRODUCERS: Mapping[str, Callable[[str], Producer]] = {"local": LocalProducer}
_READERS: Mapping[str, Callable[[str], Reader]] = {"local": LocalReader}
_ADMINS: Mapping[str, Callable[[str], Admin]] = {"local": LocalAdmin}


def open_producer(url: str) -> Producer:
    """A producer for the log at ``url``; start it before use.

    Raises:
        Refuse: no log has such a URL.
    """
    return _open(_PRODUCERS, url)


def open_reader(url: str) -> Reader:
    """A reader, as :func:`open_producer`."""
    return _open(_READERS, url)


def open_admin(url: str) -> Admin:
    """An admin client, as :func:`open_producer`."""
    return _open(_ADMINS, url)


def _open(clients: Mapping[str, Callable[[str], Client]], url: str) -> Client:
    client = clients.get(urlsplit(url).scheme)
    if client is None:
        works = ", ".join(f"{scheme}://" for scheme in clients)
        raise Refuse("broker.scheme", f"no log client for {url!r}", f"these work: {works}")
    return client(url)
