"""SentencePiece's Unigram model in Python: large vocabularies in a fifth of the memory.

XLM-R's 250,002 pieces take the tokenizers library 280 MB, as a trie of hash maps; a dict takes 65.
Normalisation and splitting at spaces stay the library's; only the search for the likeliest pieces
of a word is here, and most words are remembered.  It is Viterbi over characters (Kudo 2018,
arXiv:1804.10959) with the library's choices: an unknown character costs 10 more than the rarest
piece, of equal paths the one that was found first wins, unknown characters in a row become one.
Unlike the library, ``<s>`` and its like within a text are text, so that no text can pretend to end.
"""

import json
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
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
        used = (*self._before, *self._after, self.pad, self._unknown, len(self._pieces) - 1)
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
        return self._pieces[token]

    def _encode_one(self, text: str) -> tuple[list[int], bool]:
        ids: list[int] = []
        for word, _ in self._split(self._normalise(text)):
            ids += self._pieces_of(word)
            if len(ids) > self._room:
                break
        return [*self._before, *ids[: self._room], *self._after], len(ids) > self._room

    def _read(self, vocabulary: list[tuple[str, float]], special: dict[str, int]) -> None:
        self._scores = array("d", (score for _, score in vocabulary))
        self._pieces = [piece for piece, _ in vocabulary]
        self._ids = {piece: place for place, piece in enumerate(self._pieces)}
        for piece in special:
            self._ids.pop(piece, None)
        self._longest = max(map(len, self._ids), default=0)
        self._unknown_score = min(self._scores, default=0.0) - UNKNOWN_PENALTY

    def _search(self, word: str) -> tuple[int, ...]:
        """The likeliest pieces of a word."""
        ids, scores, size = self._ids, self._scores, len(word)
        best = [0.0] * (size + 1)
        start_of = [-1] * (size + 1)
        id_of = [self._unknown] * (size + 1)
        for start in range(size):
            so_far = best[start]
            for end in range(start + 1, min(size, start + self._longest) + 1):
                place = ids.get(word[start:end])
                if place is None:
                    if end != start + 1:
                        continue
                    place, score = self._unknown, so_far + self._unknown_score
                else:
                    score = so_far + scores[place]
                if start_of[end] < 0 or score > best[end]:
                    best[end], start_of[end], id_of[end] = score, start, place
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
