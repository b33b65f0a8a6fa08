"""What a model answered, apart from what it thought: every dialect is a row of a table.

Servers put reasoning into a field of its own, or leave it in the content between tags.  Several
blocks are one; a block that never ends is reasoning to the end; an end without a begin says that
everything before it was reasoning (templates that write the opening tag into the prompt).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from streamapp.models.llm.extract import is_object


class Said(NamedTuple):
    """A message's answer and its reasoning, either may be empty."""

    answer: str
    reasoning: str


class Dialect(NamedTuple):
    """Tags round reasoning."""

    begin: str
    end: str

    def tags(self, text: str) -> "Iterator[re.Match[str]]":
        """Every begin and end in a text, from the left; group 1 is an end."""
        return re.finditer(f"{re.escape(self.begin)}|({re.escape(self.end)})", text)


DIALECTS = (
    Dialect("<think>", "</think>"),  # DeepSeek R1, Qwen3 and most others
    Dialect("<thinking>", "</thinking>"),
    Dialect("<seed:think>", "</seed:think>"),  # ByteDance Seed-OSS
    Dialect("<|channel>thought", "<channel|>"),  # Gemma 4
    Dialect("[THINK]", "[/THINK]"),  # Magistral
    Dialect("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere Command A
    Dialect("◁think▷", "◁/think▷"),  # Kimi
)
#: Fields of a message that servers put reasoning into; vLLM renamed the first to the second.
FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
#: gpt-oss's harmony format: channels, of which ``final`` is the answer.
_HARMONY = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_HARMONY_END = re.compile(r"<\|(?:end|return|call|start)\|>")


def said(message: Mapping[str, Any]) -> Said:
    """The answer and the reasoning of a message of a chat completion."""
    content, inside = _content(message.get("content"))
    fields = [_text(message.get(name)) for name in FIELDS]
    # Tags within an answer's strings are its author's.
    answer, tagged = (content, "") if is_object(content) else split(content)
    return Said(answer.strip(), "\n".join(part for part in (*fields, inside, tagged) if part))


def split(text: str) -> Said:
    """A text without its reasoning, and the reasoning."""
    if "<|channel|>" in text:
        return _harmony(text)
    thought: list[str] = []
    for dialect in DIALECTS:
        text = _without(text, dialect, thought)
    return Said(text.strip(), "\n".join(part.strip() for part in thought if part.strip()))


def _without(text: str, dialect: Dialect, thought: list[str]) -> str:
    """The text without blocks of this dialect, which are added to ``thought``."""
    kept: list[str] = []
    at, is_inside = 0, False
    for tag in dialect.tags(text):
        is_end = tag[1] is not None
        if is_inside and not is_end:
            continue
        before = text[at : tag.start()]
        if is_inside:
            thought.append(before)
        elif is_end:  # its begin was part of the prompt
            thought += [*kept, before]
            kept = []
        else:
            kept.append(before)
        at, is_inside = tag.end(), not is_end
    (thought if is_inside else kept).append(text[at:])
    return "".join(kept)


def _harmony(text: str) -> Said:
    marks = list(_HARMONY.finditer(text))
    if not marks:  # it was cut off before it said which channel
        return Said("", text)
    parts = [
        (mark[1], _HARMONY_END.split(text[mark.end() : until], maxsplit=1)[0])
        for mark, until in zip(
            marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=True
        )
    ]
    final = [part for channel, part in parts if channel == "final"]
    rest = [part.strip() for channel, part in parts if channel != "final"]
    return Said("".join(final).strip(), "\n".join(rest))


def _content(content: Any) -> tuple[str, str]:
    """Text, and reasoning, of a content that is a text or a list of parts."""
    if not isinstance(content, list):
        return _text(content), ""
    texts: list[str] = []
    thought: list[str] = []
    for part in content:
        if isinstance(part, dict):
            is_answer = part.get("type") in {"text", "output_text"}
            (texts if is_answer else thought).append(_text(part))
    return "".join(texts), "\n".join(one for one in thought if one)


def _text(value: Any) -> str:
    """What a field says, whether it is a text, a part with one, or a list of these."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_text, value)))
    if isinstance(value, dict):
        known = (value.get(name) for name in ("text", "content", "thinking", "summary"))
        return next(filter(None, map(_text, known)), "")
    return ""
