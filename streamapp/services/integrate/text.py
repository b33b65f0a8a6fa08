"""Texts as they are compared, and the keys that bring records together."""

import re
from collections.abc import Callable, Mapping

import polars as pl

from streamapp.plugin import Refuse

_CALL = re.compile(r"\s*(?:(\w+)\s*\(\s*)?([^(),]+?)\s*(?:,\s*(\d+)\s*)?(\))?\s*")
#: Letters that sound alike, https://www.archives.gov/research/census/soundex
_SOUNDS = {"BFPV": "1", "CGJKQSXZ": "2", "DT": "3", "L": "4", "MN": "5", "R": "6"}


def normal(text: pl.Expr) -> pl.Expr:
    """Lower case, without accents and punctuation; one space between words."""
    return text.map_batches(_normal, return_dtype=pl.String)


def _normal(text: pl.Series) -> pl.Series:
    plain = text.str.len_bytes().sum() == text.str.len_chars().sum()
    if not plain:
        text = text.str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    words = "[^a-z0-9]+" if plain else r"[^\p{L}\p{N}]+"
    return text.str.to_lowercase().str.replace_all(words, " ").str.strip_chars()


def soundex(text: pl.Expr) -> pl.Expr:
    """The American Soundex code of a text's letters, like ``R163``; null where it has none."""
    letters = text.str.normalize("NFKD").str.to_uppercase().str.replace_all("[^A-Z]", "")
    coded = letters.str.replace_all("[HW]", "")  # letters that they part still sound as one
    for alike, digit in _SOUNDS.items():
        coded = coded.str.replace_all(f"[{alike}]+", digit)
    first = letters.str.slice(0, 1)
    # the first letter stands for itself, so its own sound, if it has one, is not said twice
    silent = first.str.contains("[AEIOUYHW]")
    rest = pl.when(silent).then(coded).otherwise(coded.str.slice(1))
    digits = rest.str.replace_all("[AEIOUY]", "")
    return pl.when(letters != "").then((first + digits + "000").str.slice(0, 4))


_FUNCTIONS: Mapping[str, Callable[[pl.Expr, int], pl.Expr]] = {
    "normal": lambda text, _: normal(text),
    "prefix": lambda text, count: normal(text).str.slice(0, count),
    "reverse": lambda text, _: normal(text).str.reverse(),
    "soundex": lambda text, _: soundex(text),
    "year": lambda text, _: text.str.extract(r"(\d{4})"),
}


def field_of(key: str) -> str:
    """The field of a key such as ``dob`` or ``prefix(last, 3)``.

    Raises:
        Refuse: it is none.
    """
    return _parsed(key)[1]


def key_of(key: str) -> pl.Expr:
    """A key's value: a text, or null where the field is null or has nothing left.

    Raises:
        Refuse: it is no key.
    """
    function, name, count = _parsed(key)
    text = pl.col(name).cast(pl.String)
    made = _FUNCTIONS[function](text, count) if function else text
    return pl.when(made != "").then(made)


def _parsed(key: str) -> tuple[str, str, int]:
    match = _CALL.fullmatch(key)
    function = match[1] or "" if match else ""
    if (
        match is None
        or bool(match[1]) != bool(match[4])
        or bool(match[3]) != (function == "prefix")
    ):
        fix = "give a field, or prefix(FIELD, 3), soundex(FIELD), year(FIELD), normal(FIELD)"
        raise Refuse(
            "integrate.blocking", f"config.matching_strategy.blocking: {key!r} is no key", fix
        )
    if function and function not in _FUNCTIONS:
        why = f"config.matching_strategy.blocking: there is no {function!r} in {key!r}"
        raise Refuse("integrate.blocking", why, f"there are {', '.join(_FUNCTIONS)}")
    return function, match[2], int(match[3] or 0)
