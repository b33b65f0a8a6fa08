"""A manifest and its verified files to a Session, by the manifest's format."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.declaration import names_user
from streamapp.models.manifest import Manifest, RemoteSpec
from streamapp.models.session import Session, check_signature, parse_signature

if TYPE_CHECKING:
    from streamapp.models.tuned import Backend

#: Gives what ``env:NAME`` or ``file:PATH`` holds, or refuses.
Secret = Callable[[str], str]


def no_secrets(reference: str) -> str:
    """For who opens files only."""
    raise Refuse(
        "config.secret",
        f"{reference} is asked for where no settings are",
        "open the registry by streamapp.compose",
    )


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a session takes beside the model: ``threads`` of one inference, and secrets."""

    threads: int = 1
    secret: Secret = no_secrets
    options: Mapping[str, str] = field(default_factory=dict)


def open_session(manifest: Manifest, folder: Path, ref: ModelRef, how: Opening) -> Session:
    """Open a model; its signature is held against the manifest's.

    Args:
        manifest: what is promised.
        folder: where its files are, verified.
        ref: who it is.
        how: threads and secrets.

    Raises:
        Refuse: a file cannot be loaded, or inputs or outputs are not the declared ones.
        Retry: a remote model's server is away.
    """
    check_requires(manifest)
    session = _open(manifest, folder, ref, how)
    try:
        for kind in ("input", "output"):
            declared = parse_signature(getattr(manifest, f"{kind}s"))
            check_signature(manifest.full_name, kind, declared, getattr(session, f"{kind}s"))
    except BaseException:
        session.close()
        raise
    return session


def check_requires(manifest: Manifest) -> None:
    """Refuse a model that takes a Python package which is not installed, in whatever version."""
    for requirement in manifest.requires:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            distribution(name)
        except (PackageNotFoundError, ValueError):
            raise Refuse(
                "models.requires",
                f"{manifest.full_name} needs {requirement}, which is not installed",
                f"run `pip install '{requirement}'`",
            ) from None


def _open(manifest: Manifest, folder: Path, ref: ModelRef, how: Opening) -> Session:
    if manifest.format in ("onnx", "openvino"):
        from streamapp.models.tuned import as_declared, open_file, read_tuned

        backend: Backend = "onnxruntime" if manifest.format == "onnx" else "openvino"
        tuned = read_tuned(folder, ref) or as_declared(ref, backend, how.threads, 1, 1)
        return open_file(ref, folder / manifest.model, tuned)
    if manifest.format == "function":
        from streamapp.models.formats.function import open_function

        return open_function(ref, manifest)
    if manifest.format in ("v2", "openai") and manifest.remote:
        from streamapp.models.formats.remote import open_remote

        return open_remote(ref, manifest, resolved(manifest.remote, how.secret))
    raise Refuse(
        "models.format",
        f"{manifest.full_name} is of format {manifest.format!r}, which is no session",
        f"ask for it by what it does: its task is {manifest.task}",
    )


def check_remote(manifest: Manifest, secret: Secret) -> None:
    """Refuse a server whose address is elsewhere and names a user; it is in no message.

    An address that is not there now is for who opens the model.
    """
    if manifest.remote is None or not manifest.remote.url.startswith("env:"):
        return
    try:
        url = secret(manifest.remote.url)
    except Refuse:
        return
    if names_user(url):
        raise Refuse(
            "models.declaration",
            f"{manifest.full_name}: {manifest.remote.url} names a user, and addresses are shown",
            "take it out of the address, and write token = 'env:NAME' or 'file:PATH' in [remote]",
        )


def resolved(remote: RemoteSpec, secret: Secret) -> RemoteSpec:
    """The server with its URL and token read from where they are."""
    import msgspec

    url = secret(remote.url) if remote.url.startswith("env:") else remote.url
    token = secret(remote.token) if remote.token else ""
    return msgspec.structs.replace(remote, url=url, token=token)
