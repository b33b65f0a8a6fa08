"""RAKE's phrases and scores are rake-nltk's; YAKE's are yake's."""

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reviews import REVIEWS

from streamapp.plugin import Refuse
from streamapp.services.text.keywords import extractor, rake
from streamapp.services.text.words import words

STOPWORDS = set(words("stopwords"))
PIECES = [
    "red",
    "apples",
    "pie",
    "the",
    "of",
    "and",
    ".",
    ",",
    ";",
    "Raul's",
    "well-known",
    "e-mail",
    "42",
    "good",
]


def theirs(text):
    """Phrases and scores by the package, which is given words as ours are."""
    from rake_nltk import Rake  # NLTK: half a second for whoever only collects

    found = Rake(
        stopwords=STOPWORDS, punctuations=set("!?.,;:()'\"-@=") | {"..."}, max_length=100,
        sentence_tokenizer=lambda said: re.split(r"\n\s*\n", said),
        word_tokenizer=re.compile(r"\w[\w'\u2019-]*|[^\w\s]").findall,
    )  # fmt: skip
    found.extract_keywords_from_text(text)
    scores = found.get_ranked_phrases_with_scores()
    return {phrase: score for score, phrase in scores if not phrase.replace(" ", "").isdecimal()}


def ours(text, keywords_max=1000, words_max=100):
    """The keywords of one text."""
    return [tuple(one.values()) for one in rake([text], keywords_max, words_max).to_pylist()[0]]


@pytest.mark.parametrize("text", [text for text in REVIEWS if "3.14" not in text])
def test_rake(text):
    assert dict(ours(text)) == pytest.approx(theirs(text))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.sampled_from([p for p in PIECES if p != "42"]), max_size=30).map(" ".join))
def test_rake_of_any_words(text):
    assert dict(ours(text)) == pytest.approx(theirs(text))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.sampled_from([*PIECES, "\n\n"]), max_size=12).map(" ".join)))
def test_texts_beside_each_other_keep_their_own_phrases(texts):
    together = rake(texts, 3, 2).to_pylist()
    assert together == [one for text in texts for one in rake([text], 3, 2).to_pylist()]


def test_the_best_come_first_and_the_earlier_among_equals():
    found = ours("Blue cheese. Old red wine. Green apples, and 1984. Bread.", 4, 3)
    assert found == [
        ("old red wine", 9.0), ("blue cheese", 4.0), ("green apples", 4.0), ("bread", 1.0)
    ]  # fmt: skip
    assert ours("cold old grey stone walls stand", 9, 3) == []


def test_yake():
    import yake

    text = REVIEWS[4]
    found, nothing = extractor("yake", 5, 2)([text, ""], None).to_pylist()
    expected = yake.KeywordExtractor(lan="en", n=2, top=5).extract_keywords(text)
    assert [one["text"] for one in found] == [said.lower() for said, _ in expected]
    assert [one["score"] for one in found] == pytest.approx([1 / (1 + s) for _, s in expected])
    assert nothing == []


def test_without_yake_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "yake", None)
    with pytest.raises(Refuse, match=r"YAKE is not installed .*streamapp\[yake\]"):
        extractor("yake", 5, 2)
