"""Words that say that something is unfinished, and what a merge leaves behind."""

import re
from pathlib import Path

import pytest

KINDS = {".py", ".pyi", ".c", ".h", ".toml", ".md", ".yml", ".yaml", ".json", ".sh", ""}
FOLDERS = ("streamapp", "tests", "bench", "examples", "topics", "models", "docker", ".ci")
UNFINISHED = re.compile(
    r"""
    \b(TODO|FIXME|XXX|HACK)\b
    | (?i:\b(
        coming\ soon | not\ yet\ implemented | unimplemented | placeholder | lorem\ ipsum
        | in\ a\ real\ (system|implementation|application) | work\ in\ progress
      )\b)
    | (?i:\bfor\ now[,:])
    | ^<{7}\  | ^>{7}\  | ^={7}$
    """,
    re.MULTILINE | re.VERBOSE,
)


def test_nothing_says_that_it_is_unfinished(root):
    found = []
    tops = [path for path in root.iterdir() if path.is_file()]
    below = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    for path in (*tops, *below):
        if path.suffix not in KINDS or "_defaults" in path.parts or path == Path(__file__):
            continue
        text = path.read_bytes().decode(errors="replace")
        for hit in UNFINISHED.finditer(text):
            line = text.count("\n", 0, hit.start()) + 1
            found.append(f"{path.relative_to(root)}:{line}: {hit[0]}")
    assert found == []


@pytest.mark.parametrize("text", ["# TODO: later", "raise Unimplemented", "<<<<<<< ours"])
def test_the_words_are_found(text):
    assert UNFINISHED.search(text)


@pytest.mark.parametrize("text", ["a hackney", "todos los clientes", "======== title"])
def test_other_words_are_not(text):
    assert not UNFINISHED.search(text)
