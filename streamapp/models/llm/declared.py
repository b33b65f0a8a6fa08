"""A language model that has a manifest: ``models/chat/<name>/<version>/manifest.toml``."""

from streamapp.core.errors import Refuse
from streamapp.core.metrics import Metrics
from streamapp.models.llm.blocking import Chat
from streamapp.models.llm.client import Llm
from streamapp.models.llm.endpoint import Endpoint
from streamapp.models.manifest import ChatManifest, RemoteSpec
from streamapp.models.opening import Secret, resolved


def endpoint_of(manifest: ChatManifest, secret: Secret) -> Endpoint:
    """The server that a manifest names.

    Args:
        manifest: with ``[remote]``.
        secret: gives what its references hold.

    Raises:
        Refuse: there is no server, or what it names is none.
    """
    if manifest.remote is None:
        raise Refuse(
            "models.remote",
            f"{manifest.full_name} names no server",
            'write [remote] url = "http://127.0.0.1:1234/v1" into its manifest',
        )
    remote: RemoteSpec = resolved(manifest.remote, secret)
    return Endpoint(
        remote.url,
        remote.model,
        remote.token,
        answer_s_max=remote.timeout_s,
        retry_s=remote.timeout_s if remote.attempts > 1 else 0.0,
        calls_max=remote.connections,
    )


def open_chat(manifest: ChatManifest, secret: Secret) -> Chat:
    """A client of that server, with a thread of its own.

    Raises:
        Refuse: as :func:`endpoint_of`.
    """
    endpoint = endpoint_of(manifest, secret)
    return Chat(lambda: Llm(endpoint, Metrics()))
