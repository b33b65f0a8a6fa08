"""Texts to token ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer as Library

from streamapp.core.errors import Refuse
from streamapp.models.unigram import UnigramTokenizer, is_unigram

_PADS = ("<pad>", "[PAD]")


class Tokenizer(Protocol):
    """Texts to ids below ``ids``.

    ``pad`` is the one that fills the rest of a row; ``specials`` are those that are no text.
    """

    ids: int
    pad: int
    specials: frozenset[int]

    def piece(self, token: int) -> str:
        """What an id stands for, as the vocabulary writes it."""
        ...

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Ids of each text, special ones included, and whether it was cut."""
        ...


class LibraryTokenizer:
    """Any tokenizer.json, by the tokenizers library."""

    def __init__(self, content: bytes, tokens_max: int) -> None:
        self._library = Library.from_buffer(content)
        self._library.no_padding()
        self._library.enable_truncation(tokens_max)
        pads = [self._library.token_to_id(name) for name in _PADS]
        self.pad: int = next((pad for pad in pads if pad is not None), 0)
        known = self._library.get_vocab(with_added_tokens=True).values()
        self.ids = 1 + max((*known, self.pad))
        added = self._library.get_added_tokens_decoder().items()
        self.specials = frozenset(token for token, name in added if name.special)

    def piece(self, token: int) -> str:
        """As ``Tokenizer.piece``."""
        return str(self._library.id_to_token(token))

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """As ``Tokenizer.encode``."""
        found = self._library.encode_batch_fast(list(texts))
        return [one.ids for one in found], [bool(one.overflowing) for one in found]


def open_tokenizer(path: Path, tokens_max: int) -> Tokenizer:
    """The tokenizer of a tokenizer.json, cutting at the model's window.

    Raises:
        Refuse: the file cannot be read as one.
    """
    try:
        content = path.read_bytes()
        kind = UnigramTokenizer if is_unigram(content) else LibraryTokenizer
        return kind(content, tokens_max)
    except Exception as error:  # noqa: BLE001  # the library raises nothing narrower
        raise Refuse(
            "models.tokenizer", f"{path}: {error}", "give the model's own tokenizer.json"
        ) from None
