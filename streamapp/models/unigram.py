"""SentencePiece's Unigram model: large vocabularies in a thirtieth of the memory.

XLM-R's 250,002 pieces take the tokenizers library 280 MB, as a trie of hash maps, and a dict 65;
the trie of https://github.com/s-yata/marisa-trie and its scores take 8.  Normalisation and
splitting at spaces stay the library's; only the search for the likeliest pieces of a word is here,
and most words are remembered.  It is Viterbi over characters (Kudo 2018, arXiv:1804.10959) with the
library's choices: an unknown character costs 10 more than the rarest piece, of equal paths the one
that was found first wins, unknown characters in a row become one.
Unlike the library, ``<s>`` and its like within a text are text, so that no text can pretend to end.
"""

import json
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from marisa_trie import Trie
from tokenizers import Tokenizer

UNKNOWN_PENALTY = 10.0
WORDS_REMEMBERED = 1 << 14


class _Header(msgspec.Struct):
    """The part ``model`` of a tokenizer.json, without its vocabulary."""

    type: str = ""
    unk_id: int | None = None
    byte_fallback: bool = False


class _Pieces(msgspec.Struct):
    """The vocabulary: pieces with their log likelihoods, in the order of their ids."""

    vocab: list[tuple[str, float]]


class UnigramTokenizer:
    """Texts to ids, between the template's special ids, at most ``tokens_max`` of them.

    Args:
        content: a tokenizer.json for which ``is_unigram`` is true.
        tokens_max: the model's window.
    """

    def __init__(self, content: bytes, tokens_max: int) -> None:
        parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        model = parts.pop("model")
        rest = {name: msgspec.json.decode(raw) for name, raw in parts.items()}
        self._unknown = msgspec.json.decode(model, type=_Header).unk_id or 0
        special = {token["content"]: token["id"] for token in rest["added_tokens"]}
        self._read(msgspec.json.decode(model, type=_Pieces).vocab, special)
        self.pad = special.get("<pad>", 0)
        self.specials = frozenset({*special.values(), self._unknown})
        self._before, self._after = _template(rest["post_processor"])
        used = (*self._before, *self._after, self.pad, self._unknown, len(self._place_of) - 1)
        self.ids = 1 + max(used)
        self._room = tokens_max - len(self._before) - len(self._after)
        # The library's own pipeline round a vocabulary of nothing.
        rest["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]}
        library = Tokenizer.from_str(json.dumps(rest | {"added_tokens": []}))
        self._normalise = library.normalizer.normalize_str if library.normalizer else str
        self._split = library.pre_tokenizer.pre_tokenize_str
        self._pieces_of = lru_cache(WORDS_REMEMBERED)(self._search)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Ids of each text, and whether it was cut."""
        found = [self._encode_one(text) for text in texts]
        return [ids for ids, _ in found], [cut for _, cut in found]

    def piece(self, token: int) -> str:
        """What an id stands for."""
        return str(self._trie.restore_key(self._place_of[token]))

    def _encode_one(self, text: str) -> tuple[list[int], bool]:
        ids: list[int] = []
        for word, _ in self._split(self._normalise(text)):
            ids += self._pieces_of(word)
            if len(ids) > self._room:
                break
        return [*self._before, *ids[: self._room], *self._after], len(ids) > self._room

    def _read(self, vocabulary: list[tuple[str, float]], special: dict[str, int]) -> None:
        """The trie, and by a piece's place in it its id and score; special ones are of no text."""
        pieces = [piece for piece, _ in vocabulary]
        scores = np.fromiter((score for _, score in vocabulary), "d", len(vocabulary))
        self._trie = Trie(pieces)
        self._longest = max(map(len, pieces), default=0)
        place_of = np.fromiter(map(self._trie.key_id, pieces), "i", len(pieces))
        id_at, score_at = np.empty(len(self._trie), "i"), np.empty(len(self._trie), "d")
        id_at[place_of], score_at[place_of] = np.arange(len(pieces)), scores
        id_at[[self._trie.key_id(piece) for piece in special if piece in self._trie]] = -1
        # Arrays of Python's: one number of them is read in half the time.
        self._place_of, self._id_at = array("i", place_of.tobytes()), array("i", id_at.tobytes())
        self._score_at = array("d", score_at.tobytes())
        self._unknown_score = float(scores.min(initial=0.0)) - UNKNOWN_PENALTY

    def _search(self, word: str) -> tuple[int, ...]:
        """The likeliest pieces of a word."""
        prefixes, id_at, score_at = self._trie.iter_prefixes_with_ids, self._id_at, self._score_at
        size = len(word)
        best = [0.0] * (size + 1)
        start_of = [-1] * (size + 1)
        id_of = [self._unknown] * (size + 1)
        for start in range(size):
            so_far = best[start]
            # A piece of one character is there, known or unknown, so that every end is reached.
            found = {start + 1: (self._unknown, so_far + self._unknown_score)}
            for piece, place in prefixes(word[start : start + self._longest]):
                if (token := id_at[place]) >= 0:
                    found[start + len(piece)] = token, so_far + score_at[place]
            for end, (token, score) in found.items():
                if start_of[end] < 0 or score > best[end]:
                    best[end], start_of[end], id_of[end] = score, start, token
        return tuple(self._backwards(start_of, id_of, size))

    def _backwards(self, start_of: list[int], id_of: list[int], end: int) -> list[int]:
        """Ids along the best path, unknowns in a row as one."""
        path: list[int] = []
        while end > 0:
            if not (path and path[-1] == id_of[end] == self._unknown):
                path.append(id_of[end])
            end = start_of[end]
        return path[::-1]


def is_unigram(content: bytes) -> bool:
    """True for a tokenizer.json that UnigramTokenizer understands whole.

    Raises:
        msgspec.DecodeError: it is no JSON object.
    """
    parts = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    if not {"model", "pre_tokenizer", "post_processor", "added_tokens"} <= set(parts):
        return False
    model = msgspec.json.decode(parts["model"], type=_Header)
    processor = msgspec.json.decode(parts["post_processor"])
    return (
        model.type == "Unigram"
        and not model.byte_fallback
        and model.unk_id is not None
        and isinstance(processor, dict)
        and processor.get("type") == "TemplateProcessing"
        and bytes(parts["pre_tokenizer"]) != b"null"
    )


def _template(processor: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The special ids that stand before and after a single text."""
    sides: tuple[list[int], list[int]] = ([], [])
    side = 0
    for part in processor["single"]:
        if "Sequence" in part:
            side = 1
        else:
            sides[side].extend(processor["special_tokens"][part["SpecialToken"]["id"]]["ids"])
    return sides
