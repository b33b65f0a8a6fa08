"""From texts to what GLiNER reads: words, their tokens, and windows over long texts.

A model reads a prompt with the labels and then so many words and tokens.  A text that has more is
read in windows that share words.  Each word belongs to one window, the one in which it stands
further from an edge, and a span is taken from the window that its first word belongs to: so no
span is found twice, and each is scored with words around it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from streamapp.core.errors import Refuse

Integers = npt.NDArray[np.int64]

#: Words as the reference splits them: letters and digits, joined by - or _; else each sign alone.
_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")
#: A word of more characters is noise, and tokenising it takes time; this much of it is read.
WORD_CHARS_MAX = 256
#: Words that neighbouring windows share, at most.
OVERLAP_WORDS = 64


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text that have tokens.

    ``starts`` and ``ends`` are places in the text, in characters; word w has the tokens
    ``ids[first_token[w]:first_token[w + 1]]``.  ``cut`` says whether there were more words.
    """

    starts: list[int]
    ends: list[int]
    ids: list[int]
    first_token: Integers
    cut: bool

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(frozen=True, slots=True)
class Window:
    """Words ``first`` to ``next`` of text ``text``; it answers for those from ``own_first``.

    It does so up to ``own_next``, not included.
    """

    text: int
    first: int
    next: int
    own_first: int
    own_next: int
    tokens: int


def split(tokenizer: Tokenizer, texts: Sequence[str], words_max: int) -> list[Words]:
    """The first ``words_max`` words of each text.

    A word without tokens (a zero-width space, say) is left out; the reference counts it where it
    counts words and not where it counts tokens, and what follows it is then off by one.
    """
    found = [list(_places(text, words_max + 1)) for text in texts]
    spelt = [
        [text[start : min(end, start + WORD_CHARS_MAX)] for start, end in places[:words_max]]
        for text, places in zip(texts, found, strict=True)
    ]
    encoded = tokenizer.encode_batch(spelt, is_pretokenized=True, add_special_tokens=False)
    return [
        _words(places, one.ids, one.word_ids, cut=len(places) > words_max)
        for places, one in zip(found, encoded, strict=True)
    ]


def windows(text: int, words: Words, words_max: int, tokens_max: int) -> list[Window]:
    """A text's windows in order; one when it fits.

    Args:
        text: its number, for the windows.
        words: its words.
        words_max: of a window.
        tokens_max: of a window, without the prompt.
    """
    bounds = [_reach(words, 0, words_max, tokens_max)]
    while bounds[-1][1] < len(words):
        first, next_ = bounds[-1]
        shared = min(OVERLAP_WORDS, (next_ - first) // 3)
        bounds.append(_reach(words, next_ - shared, words_max, tokens_max))
    # The middle of what two windows share parts them.
    middles = [(bounds[i][1] + bounds[i + 1][0]) // 2 for i in range(len(bounds) - 1)]
    return [
        Window(text, first, next_, own_first, own_next, _tokens(words, first, next_, tokens_max))
        for (first, next_), own_first, own_next in zip(
            bounds, [0, *middles], [*middles, len(words)], strict=True
        )
    ]


def _places(text: str, words_max: int) -> list[tuple[int, int]]:
    places = []
    for match in _WORD.finditer(text):
        places.append(match.span())
        if len(places) == words_max:
            break
    return places


def _words(
    places: list[tuple[int, int]], ids: list[int], word_ids: list[int | None], *, cut: bool
) -> Words:
    owner = np.array(word_ids, np.int64)
    spelt, first_token = np.unique(owner, return_index=True)
    return Words(
        starts=[places[word][0] for word in spelt],
        ends=[places[word][1] for word in spelt],
        ids=ids,
        first_token=np.append(first_token, len(ids)),
        cut=cut,
    )


def _reach(words: Words, first: int, words_max: int, tokens_max: int) -> tuple[int, int]:
    """How far a window goes that begins with word ``first``: at least one word."""
    room = words.first_token[first] + tokens_max
    fits = int(np.searchsorted(words.first_token, room, side="right")) - 1
    return first, max(first + 1, min(fits, first + words_max, len(words)))


def _tokens(words: Words, first: int, next_: int, tokens_max: int) -> int:
    """Of these words; a single one that has more than there is room for is cut."""
    return min(tokens_max, int(words.first_token[next_] - words.first_token[first]))


class Prompt:
    """The labels as GLiNER reads them before a text.

    Attributes:
        labels: without repeats, in order.
        ids: tokens of the prompt, the one that begins every input included.
        end: tokens that end every input.

    Raises:
        Refuse: no label, or one that cannot be read.
    """

    def __init__(
        self, tokenizer: Tokenizer, labels: Sequence[str], entity: str, separator: str
    ) -> None:
        self.labels = tuple(dict.fromkeys(labels))
        for label in self.labels:
            _check(label, (entity, separator), tokenizer)
        if not self.labels:
            raise Refuse("entities.labels", "no labels to look for", "name at least one")
        parts = [part for label in self.labels for part in (entity, label)]
        whole = tokenizer.encode([*parts, separator], is_pretokenized=True)
        inner = [place for place, word in enumerate(whole.word_ids) if word is not None]
        self.ids: list[int] = whole.ids[: inner[-1] + 1]
        self.end: list[int] = whole.ids[inner[-1] + 1 :]

    @property
    def tokens(self) -> int:
        """How many tokens every input has beside its words."""
        return len(self.ids) + len(self.end)


def _check(label: str, marks: tuple[str, str], tokenizer: Tokenizer) -> None:
    if any(mark in label for mark in marks):
        why = f"has {' or '.join(marks)} in it, which part the labels"
    elif not tokenizer.encode([label], is_pretokenized=True, add_special_tokens=False).ids:
        why = "has no letters that the model knows"
    else:
        return
    raise Refuse("entities.labels", f"label {label!r} {why}", "name it in plain words")
