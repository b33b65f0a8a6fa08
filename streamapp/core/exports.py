"""Where enriched rows are posted: the tables ``[exports.NAME]`` of ``streamapp.toml``.

What is declared is fixed while a process runs, but four values of the export called ``default``:
:class:`Changes`, which clients may set.  A URL that a client sets must be one that the file allows.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

import msgspec

from streamapp.core.errors import Refuse, Reject
from streamapp.core.project import project_table, read_secret
from streamapp.core.signing import key_of

#: The one whose values clients may change.
DEFAULT = "default"
#: Compacted topic, and the key of its one record: what clients have changed, as a whole.
CONFIG_TOPIC = "system.config"
CONFIG_KEY = b"default"
#: Events of this type change it too.
CONFIG_TYPE = "SystemConfig"
BATCH_SIZE_MAX = 1000
INTERVAL_MS_MAX = 3_600_000
_URL_CHARS_MAX = 2048
_SECRETS_MAX = 8
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: An IRI that makes sense as JSON-LD's ``@vocab``: absolute, nothing that would end a string.
_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\x00-\x20\x7f\s<>\"{}|\\^`]*")
#: What ends a step of a path, for one server or another.
_STEPS = re.compile(r"[/\\;]")
_PORTS = {"http": 80, "https": 443}


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    """What a table may say."""

    secrets: list[str]
    webhook_url: str = ""
    allow: list[str] = []
    where: str = "true"
    columns: list[str] = []
    config_events: bool = True
    begin: Literal["now", "beginning"] = "now"
    ontology_iri: str = ""
    batch_size: int = 100
    interval_ms: int = 1000
    timeout_s: float = 15.0
    attempts_max: int = 10


class Changes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What clients changed; None is as declared."""

    webhook_url: str | None = None
    ontology_iri: str | None = None
    batch_size: int | None = None
    interval_ms: int | None = None

    @classmethod
    def decode(cls, value: bytes | None) -> Self:
        """Of a record of ``system.config``; what is not ours in it is passed over.

        Raises:
            msgspec.DecodeError: it is not one.
        """
        return msgspec.json.decode(value or b"{}", type=cls)

    def merged(self, given: Mapping[str, Any]) -> "Changes":
        """These, and over them what is given; null takes a change back.

        Raises:
            msgspec.ValidationError: a value of another type.
        """
        known = {name: given[name] for name in self.__struct_fields__ if name in given}
        return msgspec.convert({**msgspec.structs.asdict(self), **known}, Changes)


@dataclass(frozen=True, slots=True)
class Export:
    """One declared export, its secrets read.

    ``attempts_max`` 0: for ever.  ``columns`` empty: all but vectors.  With an ``ontology_iri``
    events are JSON-LD.  ``config_events``: events of type ``SystemConfig`` change it.
    """

    name: str
    keys: tuple[bytes, ...] = field(repr=False)
    webhook_url: str = ""
    allow: tuple[str, ...] = ()
    where: str = "true"
    columns: tuple[str, ...] = ()
    config_events: bool = True
    begin: str = "now"
    ontology_iri: str = ""
    batch_size: int = 100
    interval_ms: int = 1000
    timeout_s: float = 15.0
    attempts_max: int = 10

    @property
    def group(self) -> str:
        """The consumer group that keeps its position."""
        return f"streamapp-export-{self.name}"

    def with_changes(self, changes: Changes) -> "Export":
        """What holds after clients changed it.

        Raises:
            Reject: as :func:`checked_changes`.
        """
        given = {name: v for name, v in msgspec.structs.asdict(changes).items() if v is not None}
        checked = checked_changes(given, self)
        changed = {n: v for n, v in msgspec.structs.asdict(checked).items() if v is not None}
        return replace(self, **changed)


def project_exports(folder: Path | None = None) -> dict[str, Export]:
    """The exports that the nearest ``streamapp.toml`` declares, by name.

    Args:
        folder: instead of the working directory.

    Raises:
        Refuse: as :func:`declared_exports` does, or the file cannot be parsed.
    """
    tables, base = project_table("exports", folder)
    return declared_exports(tables, lambda reference: read_secret(reference, base))


def has_exports(folder: Path | None = None) -> bool:
    """Whether the nearest ``streamapp.toml`` declares any; no secret is read.

    Raises:
        Refuse: the file cannot be parsed.
    """
    return bool(project_table("exports", folder)[0])


def declared_exports(
    tables: Mapping[str, Any], read_secret: Callable[[str], str]
) -> dict[str, Export]:
    """The exports by name.

    Args:
        tables: ``[exports]`` as TOML reads it.
        read_secret: from a reference to what it names; raises Refuse.

    Raises:
        Refuse: ``export.declaration`` or ``export.secret``; no message has a secret in it.
    """
    return {name: _export(name, table, read_secret) for name, table in tables.items()}


def checked_changes(values: Mapping[str, Any], export: Export) -> Changes:
    """What a client asks to be changed; keys that are not among :class:`Changes`' are passed over.

    An empty ``webhook_url`` or ``ontology_iri`` switches it off, null is as declared.

    Raises:
        Reject: ``export.config`` a value that makes no sense, ``export.url_not_allowed``.
    """
    known = {name: values[name] for name in Changes.__struct_fields__ if name in values}
    try:
        changes = msgspec.convert(known, Changes)
        if changes.webhook_url:
            checked_url(changes.webhook_url)
        _check_ranges(
            changes.ontology_iri or "",
            1 if changes.batch_size is None else changes.batch_size,
            changes.interval_ms or 0,
        )
    except msgspec.ValidationError as error:
        raise Reject("export.config", str(error), "see docs/gateway.md, Exports") from None
    except ValueError as error:
        raise Reject("export.config", str(error), "see docs/gateway.md, Exports") from None
    if changes.webhook_url and not is_allowed(changes.webhook_url, export):
        raise Reject(
            "export.url_not_allowed",
            "webhook_url is none that this project allows",
            f"its operator adds it to allow = [...] of [exports.{export.name}]",
        )
    return changes


def checked_url(url: str) -> str:
    """An URL that something may be posted to.

    Raises:
        ValueError: it is none; the message does not repeat it, for it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the URL cannot be read") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise ValueError("the URL is not http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL has a user or a password in it")
    if len(url) > _URL_CHARS_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"the URL is longer than {_URL_CHARS_MAX} or not printable ASCII")
    if "\\" in url or parts.fragment:
        raise ValueError("the URL has a backslash or a fragment")
    return url


def is_allowed(url: str, export: Export) -> bool:
    """Whether it is the declared URL, or begins with one that is allowed.

    Scheme, host and port are equal; the path is that one or below it.
    """
    if url == export.webhook_url:
        return True
    origin, path = _origin(url), urlsplit(url).path or "/"
    # Receivers decode a path before they walk it, some of them twice.
    if not {".", ".."}.isdisjoint(_STEPS.split(unquote(unquote(path)))):
        return False
    return any(
        origin == _origin(entry)
        and f"{path}/".startswith((urlsplit(entry).path or "/").rstrip("/") + "/")
        for entry in export.allow
    )


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    return parts.scheme, host, parts.port or _PORTS[parts.scheme]


def _check_ranges(ontology_iri: str, batch_size: int, interval_ms: int) -> None:
    if ontology_iri and not _IRI.fullmatch(ontology_iri):
        raise ValueError("ontology_iri is no absolute IRI")
    if len(ontology_iri) > _URL_CHARS_MAX:
        raise ValueError(f"ontology_iri is longer than {_URL_CHARS_MAX}")
    if not 1 <= batch_size <= BATCH_SIZE_MAX:
        raise ValueError(f"batch_size is {batch_size}; give 1 to {BATCH_SIZE_MAX}")
    if not 0 <= interval_ms <= INTERVAL_MS_MAX:
        raise ValueError(f"interval_ms is {interval_ms}; give 0 to {INTERVAL_MS_MAX:,}")


def _export(name: str, table: Any, read_secret: Callable[[str], str]) -> Export:
    where = f"[exports.{name[:80]}]"
    fix = "give secrets, and webhook_url or allow; see docs/gateway.md, Exports"
    if not _NAME.fullmatch(name):
        fix = "use up to 64 letters, digits, - and _"
        raise Refuse("export.declaration", f"{where}: the name is part of a group's name", fix)
    try:
        declared = msgspec.convert(table, _Declared)
        _check(declared, name)
    except ValueError as error:  # msgspec's are
        raise Refuse("export.declaration", f"{where}: {error}", fix) from None
    keys = _keys(where, declared.secrets, read_secret)
    values = msgspec.structs.asdict(declared)
    del values["secrets"]
    values |= {"allow": tuple(declared.allow), "columns": tuple(declared.columns)}
    return Export(name=name, keys=keys, **values)


def _check(declared: _Declared, name: str) -> None:
    for url in (*([declared.webhook_url] if declared.webhook_url else []), *declared.allow):
        checked_url(url)
    if not declared.webhook_url and (name != DEFAULT or not declared.allow):
        raise ValueError("there is no webhook_url, and no client may set one")
    if declared.allow and name != DEFAULT:
        raise ValueError(f"allow is for [exports.{DEFAULT}], which alone clients may change")
    _check_ranges(declared.ontology_iri, declared.batch_size, declared.interval_ms)
    if not 0.1 <= declared.timeout_s <= 300:
        raise ValueError(f"timeout_s is {declared.timeout_s:g}; give 0.1 to 300")
    if not 0 <= declared.attempts_max <= 1000:
        raise ValueError(f"attempts_max is {declared.attempts_max}; give 0 (for ever) to 1000")


def _keys(
    where: str, references: list[str], read_secret: Callable[[str], str]
) -> tuple[bytes, ...]:
    if not 1 <= len(references) <= _SECRETS_MAX:
        raise Refuse(
            "export.secret",
            f"{where} names {len(references)} secrets",
            f"name 1 to {_SECRETS_MAX}: each signs, so that a receiver may know the old or the new",
        )
    keys = []
    for number, reference in enumerate(references, 1):
        try:
            keys.append(key_of(read_secret(reference)))
        except ValueError as error:
            raise Refuse(
                "export.secret",
                f"{where}: secret {number} does not do: {error}",
                "make one: python -c 'import base64, os; "
                'print("whsec_" + base64.b64encode(os.urandom(24)).decode())\'',
            ) from None
        except Refuse as error:
            raise Refuse(
                "export.secret", f"{where}: secret {number}: {error.message}", error.fix
            ) from None
    return tuple(keys)
