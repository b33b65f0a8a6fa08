"""What is asked, what may be answered, and what came of it."""

import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import jsonschema_rs
import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True)
class Question:
    """A prompt whose answer is one JSON object.

    Attributes:
        name: what kind of question, ``[a-z_]+``; servers are told it as the schema's name.
        version: raised when the words of the prompt change, so that kept answers are not mixed.
        system: the instruction.
        user: the text that it is about.
        schema: JSON Schema of the answer: an object, everything required, nothing else allowed.
        taken: the one that an answer is held to, where less than was asked for is of use; models
            without a grammar leave out what they do not know.
    """

    name: str
    version: int
    system: str
    user: str
    schema: dict[str, Any] = field(hash=False)
    taken: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def prompt(self) -> str:
        """Which prompt it is, for provenance: ``intent@1``."""
        return f"{self.name}@{self.version}"

    def key(self, *asked: str) -> str:
        """What answers are kept under, of the endpoint and model that are ``asked``."""
        user = " ".join(unicodedata.normalize("NFC", self.user).split())
        return sha256(_encode([asked, self.prompt, self.system, user, self.schema])).hexdigest()

    def wrong(self, value: dict[str, Any]) -> str:
        """Why the value is no answer; nothing when it is one."""
        error = next(self._validator.iter_errors(value), None)
        return "" if error is None else error.message[:300]

    @cached_property
    def _validator(self) -> Any:
        return jsonschema_rs.validator_for(self.schema if self.taken is None else self.taken)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered.

    ``mode`` is how it was made to answer in JSON; ``cached``: it had answered this before.
    """

    value: dict[str, Any]
    model: str
    mode: str
    tokens_in: int = 0
    tokens_out: int = 0
    reasoning_chars: int = 0
    attempts: int = 1
    cached: bool = False
