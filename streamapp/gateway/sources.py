"""Where webhooks may come from: the tables ``[webhooks.NAME]`` of ``streamapp.toml``.

A table names its secrets, ``env:NAME`` or ``file:PATH``, and never holds one.  Several serve for
rotation: a delivery is taken when it is signed with any of them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamapp.core import signing
from streamapp.core.errors import Refuse
from streamapp.core.project import project_table, read_secret
from streamapp.gateway import signatures
from streamapp.topics.catalogue import RAW

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECRETS_MAX = 8


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    """What a table may say."""

    kind: Literal["standard", "github", "stripe"]
    secrets: list[str]
    topic: str = RAW
    type_field: str = "type"
    type_prefix: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One declared source, its secrets read.

    The event's type is ``type_prefix`` and what the payload's ``type_field`` says, or
    ``X-GitHub-Event`` and the payload's ``action``.
    """

    name: str
    kind: str
    topic: str
    type_field: str
    type_prefix: str
    keys: tuple[bytes, ...] = field(repr=False)

    @property
    def verify(self) -> signatures.Verify:
        """What proves a delivery."""
        return _VERIFY[self.kind]

    @property
    def address(self) -> str:
        """``ce_source`` of its events, and where deliveries go."""
        return f"/webhooks/{self.name}"


_VERIFY: Mapping[str, signatures.Verify] = {
    "standard": signatures.standard,
    "github": signatures.github,
    "stripe": signatures.stripe,
}
_TYPE_PREFIX = {"standard": "", "github": "com.github.", "stripe": "com.stripe."}


def project_sources(folder: Path | None = None) -> dict[str, Source]:
    """The sources that the nearest ``streamapp.toml`` declares, by name.

    Args:
        folder: instead of the working directory.

    Raises:
        Refuse: as :func:`declared_sources` does, or the file cannot be parsed.
    """
    tables, base = project_table("webhooks", folder)
    return declared_sources(tables, lambda reference: read_secret(reference, base))


def declared_sources(
    tables: Mapping[str, Any], read_secret: Callable[[str], str]
) -> dict[str, Source]:
    """The sources by name.

    Args:
        tables: ``[webhooks]`` as TOML reads it.
        read_secret: from a reference to what it names; raises Refuse.

    Raises:
        Refuse: ``webhook.declaration`` or ``webhook.secret``; no message has a secret in it.
    """
    return {name: _source(name, table, read_secret) for name, table in tables.items()}


def _source(name: str, table: Any, read_secret: Callable[[str], str]) -> Source:
    where = f"[webhooks.{name[:80]}]"
    if not _NAME.fullmatch(name):
        raise Refuse(
            "webhook.declaration",
            f"{where}: a source's name is part of a URL",
            "use up to 64 letters, digits, - and _",
        )
    try:
        declared = msgspec.convert(table, _Declared)
    except msgspec.ValidationError as error:
        raise Refuse(
            "webhook.declaration",
            f"{where}: {error}",
            "give kind (standard, github or stripe) and secrets; "
            "topic, type_field and type_prefix may be there",
        ) from None
    if not 1 <= len(declared.secrets) <= _SECRETS_MAX:
        raise Refuse(
            "webhook.secret",
            f"{where} names {len(declared.secrets)} secrets",
            f"name 1 to {_SECRETS_MAX}: the new one, and the old one while it is still in use",
        )
    key_of = signing.key_of if declared.kind == "standard" else signatures.plain_key
    keys = []
    for number, reference in enumerate(declared.secrets, 1):
        try:
            keys.append(key_of(read_secret(reference)))
        except ValueError as error:
            raise Refuse(
                "webhook.secret",
                f"{where}: secret {number} does not do: {error}",
                "copy it again from where the webhook was set up",
            ) from None
        except Refuse as error:
            raise Refuse(
                "webhook.secret", f"{where}: secret {number}: {error.message}", error.fix
            ) from None
    prefix = declared.type_prefix
    return Source(
        name,
        declared.kind,
        declared.topic,
        declared.type_field,
        _TYPE_PREFIX[declared.kind] if prefix is None else prefix,
        tuple(keys),
    )
