"""What stands between the spaces of many texts, found at once in Arrow's loops.

A word of a language repeats as no other data does: what a text's words are like is asked once for
each word of all texts, and then taken from there for each of its places.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

#: Of texts that are looked at together: each token of theirs takes about a hundred bytes.
CHARS_MAX = 1 << 21


class Tokens(NamedTuple):
    """The tokens of texts: what ``str.split`` gives.

    Attributes:
        unique: each token once, and perhaps an empty string that is none.
        codes: int32 [tokens], the place in ``unique`` of each token of all texts.
        starts: int64 [texts + 1], the first token of each text, and the end.
    """

    unique: list[str]
    codes: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    @property
    def texts(self) -> npt.NDArray[np.intp]:
        """[tokens]: the text that each token is of."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def tokens_of(texts: Sequence[str]) -> Tokens:
    """The tokens of some texts, of no more than about ``CHARS_MAX`` together."""
    split = pc.utf8_split_whitespace(_array(texts))
    encoded = split.values.dictionary_encode()
    unique: list[str] = encoded.dictionary.to_pylist()
    codes, starts = encoded.indices.to_numpy(), split.offsets.to_numpy().astype(np.int64)
    # Arrow has an empty string where a text begins or ends in a space.
    if "" in unique:
        there = codes != unique.index("")
        codes, starts = codes[there], np.concatenate([[0], np.cumsum(there)])[starts]
    return Tokens(unique, codes, starts)


def groups(texts: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """First and end of texts that are looked at together; a long one is alone."""
    first = chars = 0
    for place, text in enumerate(texts):
        more = len(text) if text else 0
        if chars + more > CHARS_MAX and place > first:
            yield first, place
            first, chars = place, 0
        chars += more
    yield first, len(texts)


def _array(texts: Sequence[str]) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:  # half a character, which no file has: Python lets one be made
        whole = [
            text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts
        ]
        return pa.array(whole, pa.string())
