"""The tokens of a project: a file that holds what they may do and no secret.

A secret is ``streamapp_ID_RANDOM`` with 256 random bits; the file has its SHA-256, which nobody
turns back (a slow hash is for passwords, which people choose).  The file is replaced as a whole,
and processes that answer requests look ten times a second whether it is another one: what is
created or revoked holds then.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamapp.core.clock import SYSTEM, Clock
from streamapp.core.errors import Refuse, StreamappError
from streamapp.core.files import draft
from streamapp.core.scopes import Grant

TOKENS_MAX = 1000
#: To ask the file system costs more than the rest of what is done for a request here.
LOOK_EVERY_S = 0.1
_FILE_BYTES_MAX = 16 << 20
_PREFIX = "streamapp"
_SECRET = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOBODY = bytes(32)
_log = logging.getLogger("streamapp.tokens")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token as it is kept; times are Unix milliseconds, ``expires_ms`` None for never."""

    name: str
    id: str
    sha256: str
    scopes: list[str]
    created_ms: int
    expires_ms: int | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int = 1
    tokens: list[Token] = []


class _Held(NamedTuple):
    digest: bytes
    grant: Grant
    expires_ms: int | None


class TokenFile:
    """The tokens as another process left them; looked at by who answers requests.

    Args:
        path: the file, which need not be there.
        clock: for tests.

    Raises:
        Refuse: ``token.file`` it cannot be read, ``token.mode`` others may read or write it.
    """

    def __init__(self, path: Path, clock: Clock = SYSTEM) -> None:
        self._path = path
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._asked = False
        self._trouble = ""
        self._looked_s = clock.monotonic_s()
        self._refresh()

    @property
    def asked(self) -> bool:
        """Whether callers must show a token: there is a file, or there was one.

        An empty one counts, and so does one that was taken away: neither opens the door.
        """
        self._look()
        return self._asked

    def find(self, shown: str) -> Grant | None:
        """Whom a secret belongs to; None when it is nobody's, or its time is over."""
        self._look()
        match = _SECRET.fullmatch(shown)
        held = self._held.get(match[1]) if match else None
        digest = hashlib.sha256(shown.encode(errors="surrogateescape")).digest()
        if not hmac.compare_digest(digest, held.digest if held else _NOBODY) or held is None:
            return None
        if held.expires_ms is not None and held.expires_ms <= self._clock.now_us() // 1000:
            return None
        return held.grant

    def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            self._refresh()
        except StreamappError as error:  # the door stays shut, and its keeper is told once
            if error.message != self._trouble:
                _log.error("no token of the file is good: %s", error)
            self._trouble = error.message

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._held, self._stamp = {}, None
            return
        except OSError as error:
            self._asked, self._held, self._stamp = True, {}, None
            raise _unreadable(self._path, error) from None
        stamp = found.st_mtime_ns, found.st_ino, found.st_size
        if stamp == self._stamp:
            return
        self._asked = True
        try:
            held = {token.id: _held(token) for token in read_tokens(self._path)}
        except StreamappError:
            self._held, self._stamp = {}, stamp
            raise
        self._held, self._stamp = held, stamp  # at once: other threads look, too
        self._trouble = ""


def read_tokens(path: Path) -> list[Token]:
    """What the file holds, nothing when there is none.

    Raises:
        Refuse: ``token.file``, ``token.mode``.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(path, error) from None
    if mode & 0o077:
        raise Refuse("token.mode", f"{path} has mode {mode:04o}", f"run `chmod 600 {path}`")
    try:
        if len(content) > _FILE_BYTES_MAX:
            raise ValueError(f"more than {_FILE_BYTES_MAX:,} bytes")  # noqa: TRY301
        found = msgspec.json.decode(content, type=_File)
        if found.version != 1:
            raise ValueError(f"version {found.version}")  # noqa: TRY301  # one way to refuse
        for token in found.tokens:
            _check(token)
    except (ValueError, RecursionError, StreamappError) as error:
        reason = error.message if isinstance(error, StreamappError) else error
        raise Refuse(
            "token.file",
            f"{path} is no file of tokens: {reason}",
            "put a copy of it back, or remove it and create the tokens anew",
        ) from None
    return found.tokens


def create_token(
    path: Path,
    name: str,
    scopes: Sequence[str],
    *,
    lasts_s: int | None = None,
    clock: Clock = SYSTEM,
) -> tuple[Token, str]:
    """Add a token; it and its secret, which is nowhere else.

    Args:
        path: of the file; it and its folder are made when they are missing.
        name: unique; letters, digits, ``.``, ``_`` and ``-``.
        scopes: see :mod:`streamapp.core.scopes`.
        lasts_s: seconds until it is not good any more; None: until it is revoked.
        clock: for tests.

    Raises:
        Refuse: the name is taken or none, a scope is none, or the file is wrong.
    """
    scopes = list(dict.fromkeys(scopes))
    Grant.of(name, scopes)
    if not _NAME.fullmatch(name):
        raise Refuse(
            "token.name",
            f"{name[:80]!r} is no name of a token",
            "use 1 to 64 letters, digits, dots, - and _; the first one a letter or a digit",
        )
    now_ms = clock.now_us() // 1000
    identity = secrets.token_hex(6)
    secret = f"{_PREFIX}_{identity}_{secrets.token_urlsafe(32)}"
    expires_ms = None if lasts_s is None else now_ms + 1000 * lasts_s
    digest = hashlib.sha256(secret.encode()).hexdigest()
    token = Token(name, identity, digest, scopes, now_ms, expires_ms)
    with _editing(path) as tokens:
        if any(known.name == name for known in tokens):
            raise Refuse(
                "token.exists",
                f"there is a token {name!r} already",
                f"choose another name, or run `streamapp token revoke {name}` first",
            )
        if len(tokens) >= TOKENS_MAX:
            raise Refuse(
                "token.many", f"there are {TOKENS_MAX:,} tokens already", "revoke what is not used"
            )
        tokens.append(token)
    return token, secret


def revoke_tokens(path: Path, names: Sequence[str]) -> list[Token]:
    """Take tokens away, by their names or ids; all of them or none.

    Raises:
        Refuse: ``token.unknown``, or the file is wrong.
    """
    gone = []
    with _editing(path) as tokens:
        for name in dict.fromkeys(names):
            found = next((token for token in tokens if name in {token.name, token.id}), None)
            if found is None:
                raise Refuse(
                    "token.unknown",
                    f"no token is called {name[:80]!r}",
                    "see `streamapp token list`",
                )
            tokens.remove(found)
            gone.append(found)
    return gone


@contextmanager
def _editing(path: Path) -> Iterator[list[Token]]:
    """The tokens, to be changed in place; one process at a time, written when nothing is raised."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise Refuse(
            "token.file", f"{path.parent}: {error.strerror}", "check the path and its mode"
        ) from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        tokens = read_tokens(path)
        yield tokens
        _replace(path, msgspec.json.format(msgspec.json.encode(_File(tokens=tokens))), folder)
    finally:
        os.close(folder)


def _replace(path: Path, content: bytes, folder: int) -> None:
    try:
        with draft(path.parent, content, 0o600) as new:
            new.replace(path)
        os.fsync(folder)
    except OSError as error:
        raise Refuse(
            "token.file", f"{path} cannot be written: {error.strerror}", "check disk and mode"
        ) from None


def _held(token: Token) -> _Held:
    digest, grant = bytes.fromhex(token.sha256), Grant.of(token.name, token.scopes)
    return _Held(digest, grant, token.expires_ms)


def _check(token: Token) -> None:
    Grant.of(token.name, token.scopes)
    if len(bytes.fromhex(token.sha256)) != len(_NOBODY):
        raise ValueError(f"sha256 of {token.name!r} is none")


def _unreadable(path: Path, error: OSError) -> Refuse:
    return Refuse("token.file", f"{path}: {error.strerror}", "check the path and its mode")
