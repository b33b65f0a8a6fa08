"""Sentiment: VADER's own numbers, and those of a trained model."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vaderSentiment.vaderSentiment import BOOSTER_DICT, SPECIAL_CASES, SentimentIntensityAnalyzer

from streamapp.plugin import Refuse, vector_column
from streamapp.plugin.testing import HashClassifier, HashModels, batch_of
from streamapp.plugin.vader import Vader
from streamapp.stages.sentiment import Sentiment

THEIRS, OURS = SentimentIntensityAnalyzer(), Vader()
#: Words of every rule: negation, degree, contrast, idioms, emoticons, emphasis.
WORDS = (
    " ".join([*BOOSTER_DICT, *SPECIAL_CASES])
    + " but But not never no kind of least at this without doubt or nor so isn't AIN'T"
    + " good BAD bad happy Sad love hate horrible great lol :) :D :-( <3 !!! ??? ?! . the"
    + " 💘 😁great 💋💋 ☹ é"
).split()


def same(text):
    [scores] = OURS.judge([text])
    assert scores._asdict() == THEIRS.polarity_scores(text), text


@given(st.lists(st.sampled_from(WORDS), max_size=16).map(" ".join))
def test_any_words_get_the_package_s_numbers(text):
    same(text)


@given(st.text(max_size=60))
def test_any_text_gets_the_package_s_numbers(text):
    same(text)


def test_thousands_of_sentences_get_the_package_s_numbers():
    chance = random.Random(7)
    lexicon = list(THEIRS.lexicon)
    for _ in range(3000):
        words = chance.choices(WORDS, k=chance.randint(0, 9))
        words += chance.choices(lexicon, k=chance.randint(0, 4))
        chance.shuffle(words)
        same(" ".join(words))


@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=5))
def test_texts_beside_each_other_do_not_bear_on_each_other(texts):
    assert OURS.judge(texts) == [one for text in texts for one in OURS.judge([text])]


def test_a_long_text_with_a_but_takes_no_longer_than_one_without():
    """Each word once: with a look at all of them for each it would be 10^10 looks."""
    [scores] = OURS.judge(["good " * 100_000 + "but"])
    assert scores.pos == round(100_000 * (1.9 * 0.5 + 1) / (100_000 * (1.9 * 0.5 + 1) + 1), 3)
    assert scores.neg == 0
    some = "good bad GOOD great bad good but " * 40
    same(some)


def opened(labels, takes="vectors", **options):
    way = "head" if takes == "vectors" else "classifier"
    models = HashModels(classifiers={"x": HashClassifier(labels, takes)})
    stage = Sentiment({way: "x", **options})
    stage.declare(models)
    stage.open(models)
    return stage


def weighed(stage, texts):
    vectors = HashModels().embedder().embed([text or "" for text in texts])[0]
    vectors[[text is None for text in texts]] = np.nan
    columns = stage.enrich(batch_of(text=texts, embedding=vector_column(vectors)))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return [array.to_pylist() for array in columns.values()]


@pytest.mark.parametrize("takes", ["vectors", "texts"])
def test_a_model_s_probabilities_become_one_number(takes):
    stage = opened(["Negative", "neutral", "Positive"], takes)
    sentiment, sure, source = weighed(stage, ["Positive", "neutral", None, "Negative"])
    assert sentiment[0] > 0.9
    assert abs(sentiment[1]) < 0.1
    assert sentiment[3] < -0.9
    assert (sentiment[2], sure[2], source[2]) == (None, None, None)
    assert 0.9 < sure[0] <= 1
    assert source[0] == ("head" if takes == "vectors" else "classifier") + ":hashed-words"
    assert stage.models[0].name == "hashed-words"


def test_labels_may_be_worth_anything():
    stage = opened(["awful", "fine"], values={"awful": -0.5, "fine": 1})
    sentiment, _, _ = weighed(stage, ["awful", "fine"])
    assert sentiment == pytest.approx([-0.5, 1], abs=0.05)


def test_a_label_without_a_value_is_refused_before_anything_runs():
    with pytest.raises(Refuse, match="label 'awful' of x has no value") as caught:
        opened(["awful", "positive"])
    assert "values" in caught.value.fix


@pytest.mark.parametrize("worth", [2, -1.5, "bad", True, float("nan")])
def test_a_value_out_of_range_is_refused(worth):
    with pytest.raises(Refuse, match="the value of 'a'"):
        Sentiment({"head": "x", "values": {"a": worth}})


def test_what_it_reads_follows_from_who_judges():
    assert Sentiment({}).reads == ("text", "language")
    assert Sentiment({"head": "x"}).reads == ("embedding",)
    assert Sentiment({"classifier": "x"}).reads == ("text",)
