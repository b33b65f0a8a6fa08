"""Whether the servers of remote models answer: asked side by side, and never waited for longer."""

from collections import deque
from collections.abc import Iterable
from contextlib import closing
from threading import Thread

import msgspec

from streamapp.core.clock import monotonic_s
from streamapp.core.errors import StreamappError
from streamapp.models.formats.http import Pool
from streamapp.models.manifest import Manifest, RemoteSpec
from streamapp.models.opening import Secret, resolved

#: What all servers together may take.
WAIT_S = 2.0
AT_ONCE_MAX = 16
_OK, _MISSING = 200, 404
_NOT_US = (401, 403)


def away(manifests: Iterable[Manifest], secret: Secret, wait_s: float = WAIT_S) -> dict[str, str]:
    """Full name to why a model cannot be asked, of each whose server does not answer well.

    A server is asked once.  One that has not answered after ``wait_s`` together with all others is
    away, whether it is slow, or its name cannot be looked up.

    Args:
        manifests: those that have no ``[remote]`` are passed over.
        secret: gives what ``env:`` and ``file:`` hold.
        wait_s: seconds.
    """
    left = deque(one for one in manifests if one.remote is not None)
    found = {one.full_name: f"no answer within {wait_s:g} s" for one in left}
    deadline_s = monotonic_s() + wait_s

    def work() -> None:
        while monotonic_s() < deadline_s:
            try:
                manifest = left.popleft()
            except IndexError:
                return
            found[manifest.full_name] = _why_away(manifest, secret, deadline_s - monotonic_s())

    # They are daemons: a name that is looked up without end keeps no process from ending.
    threads = [Thread(target=work, daemon=True) for _ in range(min(len(left), AT_ONCE_MAX))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - monotonic_s()))
    return {name: why for name, why in dict(found).items() if why}


def _why_away(manifest: Manifest, secret: Secret, wait_s: float) -> str:
    """Nothing when it answers; whatever else a server does is said of that server."""
    assert manifest.remote is not None  # noqa: S101  # the caller looked
    try:
        remote = resolved(manifest.remote, secret)
        short = msgspec.structs.replace(
            remote, timeout_s=max(wait_s, 0.001), attempts=1, connections=1
        )
        return _of_v2(manifest, short) if manifest.format == "v2" else _of_openai(manifest, short)
    except StreamappError as error:
        return error.message


def _of_v2(manifest: Manifest, remote: RemoteSpec) -> str:
    base = msgspec.structs.replace(remote, url=remote.url.rstrip("/").removesuffix("/v2"))
    path = f"/v2/models/{remote.model or manifest.name}"
    with closing(Pool(base, manifest.full_name)) as pool:
        status = pool.probe(f"{path}/ready").status
        if status == _MISSING:  # no such model, or a server that cannot say so
            status = pool.probe(path).status
    return "" if status == _OK else f"{manifest.full_name}: its server answered {status}"


def _of_openai(manifest: Manifest, remote: RemoteSpec) -> str:
    """Not every server lists its models; one that answers at all does live."""
    with closing(Pool(remote, manifest.full_name)) as pool:
        status = pool.probe("/models").status
    lives = status < 500 and status not in _NOT_US  # HTTP's own
    return "" if lives else f"{manifest.full_name}: its server answered {status}"
