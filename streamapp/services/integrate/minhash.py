"""Texts that share many trigrams, by the smallest of their hashes (Broder 1997, MinHash)."""

import numpy as np
import numpy.typing as npt
import polars as pl

_TEXTS_AT_ONCE = 50_000
_SEED = 20_261_122
_PRIME = np.uint64((1 << 61) - 1)


Numbers = npt.NDArray[np.uint64]


def band_keys(texts: pl.Series, bands: int, rows: int) -> tuple[npt.NDArray[np.uint32], Numbers]:
    """Places of texts and a number for each band, equal for texts whose smallest hashes of it are.

    Texts with the share s of their trigrams in common agree in a band of r rows with the
    probability s^r.  A text of fewer than three bytes has one trigram, padded; an empty or null one
    has none.

    Args:
        texts: as they are compared, (n,).
        bands: how many; each has other hashes.
        rows: hashes per band.

    Returns:
        places: (bands * those with a text,).
        keys: of the same length.
    """
    factors = np.random.default_rng(_SEED).integers(1, 1 << 62, (bands, rows), np.uint64)
    factors = factors * np.uint64(2) + np.uint64(1)
    there = np.flatnonzero((texts.fill_null("") != "").to_numpy())
    kept = texts.gather(there)
    keys = [
        _keys(kept[first : first + _TEXTS_AT_ONCE], factors)
        for first in range(0, len(kept), _TEXTS_AT_ONCE)
    ]
    found = np.concatenate(keys) if keys else np.empty((0, bands), np.uint64)
    return np.repeat(there, bands).astype(np.uint32), found.ravel()


def _keys(texts: pl.Series, factors: Numbers) -> Numbers:
    """Of each text, (n, bands)."""
    padded = [f"{text:<3}".encode() for text in texts]
    lengths = np.fromiter((len(text) for text in padded), np.int64, len(padded))
    data = np.frombuffer(b"".join(padded), np.uint8).astype(np.uint64)
    codes = data[:-2] << np.uint64(16) | data[1:-1] << np.uint64(8) | data[2:]
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    inside = np.ones(len(codes), np.bool_)  # a trigram does not reach into the next text
    for back in (1, 2):
        inside[starts[1:] - back] = False
    codes = codes[inside]
    first = starts - 2 * np.arange(len(starts))
    keys = np.tile(np.arange(len(factors), dtype=np.uint64), (len(padded), 1))
    for band, hashes in enumerate(factors):
        for factor in hashes:
            smallest = np.minimum.reduceat(_mixed(codes * factor), first)
            keys[:, band] = _mixed(keys[:, band] * _PRIME + smallest)
    return keys


def _mixed(values: Numbers) -> Numbers:
    """Every bit of the result depends on every bit given (the finaliser of splitmix64)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)
