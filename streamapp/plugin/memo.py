"""A bounded memory of what was worked out for words, which repeat as no other data does."""

from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

#: Half of all words of a language's texts are a few hundred; what is beyond this is rare.
ENTRIES_MAX = 100_000
#: What is longer is no word, and is not kept.
CHARS_MAX = 64


class Memo(dict[str, Value]):
    """``memo[word]`` is ``work(word)``; asked of a word again, it is a look into a dict.

    It forgets all when it is full, and learns the words that are in use anew.  It may be asked by
    several threads at once.
    """

    def __init__(self, work: Callable[[str], Value]) -> None:
        super().__init__()
        self._work = work

    def __missing__(self, word: str) -> Value:
        value = self._work(word)
        if len(word) <= CHARS_MAX:
            if len(self) >= ENTRIES_MAX:
                self.clear()
            self[word] = value
        return value
