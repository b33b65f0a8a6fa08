"""What stands between spaces, of many texts at once."""

import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.plugin import words
from streamapp.plugin.words import groups, tokens_of


def split(texts):
    """The tokens of each text, as strings."""
    found = tokens_of(texts)
    assert len(set(found.unique)) == len(found.unique)
    said = [found.unique[code] for code in found.codes]
    cut = [said[first:end] for first, end in pairwise(found.starts.tolist())]
    assert found.texts.tolist() == [place for place, some in enumerate(cut) for _ in some]
    return cut


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\u3000\x1f"))))
def test_they_are_those_of_str_split(texts):
    assert split(texts) == [text.split() for text in texts]


def test_every_space_of_unicode_parts_words_and_nothing_else_does():
    known = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    texts = [f"a{one}b" for one in known]
    sizes = tokens_of(texts).starts.tolist()
    parts = [known[place] for place, (at, end) in enumerate(pairwise(sizes)) if end - at == 2]
    assert parts == [one for one in known if one.isspace()]
    assert sizes[-1] == len(known) + len(parts)


def test_half_a_character_costs_no_more_than_itself():
    assert split(["good \ud800 day", "a"]) == [["good", "\ufffd", "day"], ["a"]]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], [(0, 0)]),
        (["aaaa", None, "aaaaaa"], [(0, 3)]),
        (["a" * 11, "a"], [(0, 1), (1, 2)]),
        (["a", "a" * 11, None], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_groups_are_of_bearable_length(texts, expected, monkeypatch):
    monkeypatch.setattr(words, "CHARS_MAX", 10)
    found = list(groups(texts))
    assert [place for first, end in found for place in range(first, end)] == list(range(len(texts)))
    assert found == expected
