"""Texts as they are compared, and the keys that bring records together."""

import re
from collections.abc import Callable, Mapping, Sequence

import polars as pl
import pyarrow as pa

from streamapp.plugin import Refuse

#: Of each byte of ASCII: letters are made small, what is neither letter nor digit is a space.
_ASCII = bytes(byte if chr(byte).isalnum() else 32 for byte in range(128)).lower().ljust(256)
_CALL = re.compile(r"\s*(?:(\w+)\s*\(\s*)?([^(),]+?)\s*(?:,\s*(\d+)\s*)?(\))?\s*")
_NO_TEXTS = (
    pa.types.is_nested, pa.types.is_duration,
    pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary,
)  # fmt: skip
#: Letters that sound alike, https://www.archives.gov/research/census/soundex
_SOUNDS = {"BFPV": "1", "CGJKQSXZ": "2", "DT": "3", "L": "4", "MN": "5", "R": "6"}


def is_textual(kind: pa.DataType) -> bool:
    """Whether values of this type can be said as texts: no bytes, durations, lists, structs."""
    return not any(test(kind) for test in _NO_TEXTS)


def check_textual(name: str, kind: pa.DataType, where: str) -> None:
    """Refuse a column that has no texts to compare."""
    if not is_textual(kind):
        fix = "leave it out, or say what it becomes in config.mapping, such as {type: string}"
        raise Refuse("integrate.types", f"{where}: {name!r} is {kind}, which is no text", fix)


def normal(text: pl.Expr) -> pl.Expr:
    """Lower case, without accents and punctuation; one space between words."""
    return text.map_batches(_normal, return_dtype=pl.String)


def _normal(text: pl.Series) -> pl.Series:
    given = text.to_arrow()
    valid, ends, buffer = given.buffers()
    data = buffer.to_pybytes() if buffer else b""
    if not data.isascii():
        text = text.str.normalize("NFKD").str.replace_all(r"\p{M}", "").str.to_lowercase()
        return text.str.replace_all(r"[^\p{L}\p{N}]+", " ").str.strip_chars()
    # every byte stays where it is, so that all texts are translated at once
    made = data.translate(_ASCII)
    like = pa.LargeStringArray.from_buffers(len(given), ends, pa.py_buffer(made), valid)
    found = pl.Series(text.name, like, pl.String)
    if b"  " in made:
        found = found.str.replace_all(" +", " ")
    return found.str.strip_chars()


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


def keys_of(records: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The values of keys, ``k0``, ``k1`` and so on: texts or dates; null where nothing is left.

    Raises:
        Refuse: one is no key.
    """
    made = [_made(key, records.schema).alias(f"k{number}") for number, key in enumerate(keys)]
    return without_empty(records.select(made))


def without_empty(made: pl.DataFrame) -> pl.DataFrame:
    """Null instead of empty texts.  In a step of its own, so that a text is made only once."""
    texts = pl.col(pl.String)
    return made.with_columns(pl.when(texts != "").then(texts))


def _made(key: str, schema: pl.Schema) -> pl.Expr:
    function, name, count = _parsed(key)
    field = pl.col(name)
    if function:
        return _FUNCTIONS[function](field.cast(pl.String), count)
    return field if schema[name] == pl.Date else field.cast(pl.String)


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
