"""Chat completions as they are sent and as they come back.

Modes are the ways to make a model answer in JSON, the surest first; not every server has every one.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec

from streamapp.models.llm.question import Question
from streamapp.models.llm.thinking import Said, said

#: A model's name is written down with each of its answers.
NAME_CHARS_MAX = 200
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Mode(IntEnum):
    """Steps of the ladder, from the top."""

    JSON_SCHEMA = 0
    JSON_OBJECT = 1
    TOOL = 2
    PROMPT = 3

    @property
    def told(self) -> str:
        """For people: ``json_schema``."""
        return self.name.lower()


class Completion(NamedTuple):
    """The first choice of an answer."""

    said: Said
    #: ``length``: it was cut off.
    finish: str
    model: str
    tokens_in: int
    tokens_out: int


def request(
    question: Question,
    mode: Mode,
    model: str,
    tokens_max: int,
    more: Sequence[Mapping[str, str]] = (),
    quirks: frozenset[str] = frozenset(),
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """The body of a call.

    Args:
        question: what is asked.
        mode: how JSON is asked for.
        model: as the server calls it.
        tokens_max: of the answer.
        more: messages after the question.
        quirks: what this server wants otherwise, see :func:`quirk_of`.
        extra: further members.
    """
    schema = _encode(question.schema).decode()
    asks = mode in {Mode.JSON_OBJECT, Mode.PROMPT}
    told = f"\nAnswer with one JSON object and nothing else, by this JSON Schema:\n{schema}"
    system = question.system + (told if asks else "")
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": system},
            {"role": "user", "content": question.user},
            *more,
        ],
        "stream": False,
        **(extra or {}),
    }
    body["max_completion_tokens" if "max_tokens" in quirks else "max_tokens"] = tokens_max
    if "temperature" not in quirks:
        body["temperature"] = 0
    return _encode({**body, **_format(question, mode)})


def _format(question: Question, mode: Mode) -> dict[str, Any]:
    named = {"name": question.name, "schema": question.schema, "strict": True}
    match mode:
        case Mode.JSON_SCHEMA:
            return {"response_format": {"type": "json_schema", "json_schema": named}}
        case Mode.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case Mode.TOOL:
            function = {
                "name": question.name,
                "description": "Give the answer.",
                "parameters": question.schema,
            }
            return {
                "tools": [{"type": "function", "function": function}],
                "tool_choice": {"type": "function", "function": {"name": question.name}},
            }
        case Mode.PROMPT:
            return {}


def completion(content: bytes) -> Completion | None:
    """What a body says; None when it is no chat completion."""
    try:
        body = _decode(content)
        choice = body["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls") or []
        told = said(message)
        if calls:
            arguments = calls[0]["function"]["arguments"]
            text = arguments if isinstance(arguments, str) else _encode(arguments).decode()
            told = Said(text, told.reasoning)
        usage = body.get("usage") or {}
        return Completion(
            told,
            str(choice.get("finish_reason") or ""),
            _line(str(body.get("model") or "")[:NAME_CHARS_MAX]),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
        )
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    except (KeyError, IndexError, TypeError, AttributeError):  # JSON of another shape
        return None


def first_model(content: bytes) -> str:
    """The first model of ``GET /models``; nothing when there is none, or no name of one."""
    try:
        name = _decode(content)["data"][0]["id"]
        return name if isinstance(name, str) and len(name) <= NAME_CHARS_MAX else ""
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    except (KeyError, IndexError, TypeError):
        return ""


def complaint(content: bytes) -> str:
    """The reason in the body of an error, as one short line."""
    text = content[:4096].decode(errors="replace")
    try:
        found = _decode(content)
        error = found.get("error", found) if isinstance(found, dict) else found
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass  # then it is its text
    return " ".join(_line(text).split())[:300]


def is_too_long(content: bytes) -> bool:
    """Whether a refusal is about the prompt's length, which no other mode would mend."""
    return any(
        code in content
        for code in (b"exceed_context_size", b"context_length_exceeded", b"maximum context length")
    )


def quirk_of(content: bytes) -> str:
    """The parameter that a refusal is about and that can be left out or renamed, or nothing."""
    if b"max_completion_tokens" in content and b"max_tokens" in content:
        return "max_tokens"
    return "temperature" if b"temperature" in content else ""


def _line(text: str) -> str:
    """A text in one line, whatever was in it."""
    return "".join(c if c.isprintable() else " " for c in text)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**31 else 0
