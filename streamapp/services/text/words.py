"""Lists of English words, in files beside this one."""

from functools import cache
from pathlib import Path


@cache
def words(name: str) -> frozenset[str]:
    """Those of ``NAME.txt``.

    ``stopwords`` are no part of a keyword; ``familiar`` ones are long and yet hard for nobody.
    """
    lines = Path(__file__).with_name(f"{name}.txt").read_text().splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
