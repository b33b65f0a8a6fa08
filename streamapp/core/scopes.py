"""What the holder of a token may do: produce to topics, consume topics, read, or everything."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate
from typing import Self

from streamapp.core.errors import Refuse

#: Scopes of one token, and characters of a topic's name (Kafka's limit).
SCOPES_MAX = 100
_TOPIC_CHARS_MAX = 249
_PATTERN = re.compile(rf"[A-Za-z0-9._*-]{{1,{_TOPIC_CHARS_MAX}}}")
_FIX = "scopes are produce:TOPIC, consume:TOPIC (* stands for any characters), read and admin"


class Verb(StrEnum):
    """What a request wants to do."""

    #: Nobody is asked for a token.
    OPEN = "open"
    #: Any token will do: what every client must know before it can do anything.
    ANY = "any"
    PRODUCE = "produce"
    CONSUME = "consume"
    #: Look at one topic: for those who read, and for those who produce to it or consume it.
    DESCRIBE = "describe"
    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Need:
    """What a request takes; ``topic`` "" where the verb knows none, or any one will do."""

    verb: Verb
    topic: str = ""

    @property
    def scope(self) -> str:
        """The scope that is enough, as ``streamapp token create --scope`` takes it."""
        if self.verb is Verb.DESCRIBE:
            return "read"
        by_topic = self.verb in {Verb.PRODUCE, Verb.CONSUME}
        return f"{self.verb}:{self.topic or '*'}" if by_topic else str(self.verb)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may do."""

    name: str
    scopes: tuple[str, ...]
    admin: bool
    read: bool
    produce: re.Pattern[str] | None
    consume: re.Pattern[str] | None

    @classmethod
    def of(cls, name: str, scopes: Sequence[str]) -> Self:
        """The grant of these scopes.

        Raises:
            Refuse: ``token.scope`` one is not known, there is none, or too many.
        """
        if not 1 <= len(scopes) <= SCOPES_MAX:
            raise Refuse("token.scope", f"{len(scopes)} scopes, not 1 to {SCOPES_MAX}", _FIX)
        topics: dict[str, list[str]] = {Verb.PRODUCE: [], Verb.CONSUME: []}
        words = set()
        for scope in scopes:
            verb, colon, pattern = scope.partition(":")
            if verb in topics and colon and _PATTERN.fullmatch(pattern):
                topics[verb].append(pattern)
            elif scope in {Verb.READ, Verb.ADMIN}:
                words.add(scope)
            else:
                raise Refuse("token.scope", f"{scope[:80]!r} is no scope", _FIX)
        return cls(
            name,
            tuple(scopes),
            Verb.ADMIN in words,
            Verb.READ in words,
            _any_of(topics[Verb.PRODUCE]),
            _any_of(topics[Verb.CONSUME]),
        )

    def may(self, need: Need) -> bool:
        """Whether it is enough."""
        verb = need.verb
        if self.admin or verb is Verb.ANY or verb is Verb.OPEN:
            return True
        if verb is Verb.PRODUCE:
            return _has(self.produce, need.topic)
        if verb is Verb.CONSUME:
            return _has(self.consume, need.topic)
        if verb is Verb.READ:
            return self.read
        if verb is Verb.DESCRIBE:
            return self.read or _has(self.produce, need.topic) or _has(self.consume, need.topic)
        return False


def _has(patterns: re.Pattern[str] | None, topic: str) -> bool:
    return patterns is not None and (not topic or patterns.fullmatch(topic) is not None)


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """One expression for all; ``translate`` makes one that never backtracks over a long name."""
    parts = [translate(pattern) for pattern in dict.fromkeys(patterns)]
    return re.compile("|".join(parts)) if parts else None
