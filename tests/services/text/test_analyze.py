"""text.analyze and text.keywords, as a workflow runs them."""

import pyarrow as pa
import pytest
from reviews import REVIEWS
from table_work import TableWork, made, result
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from streamapp.core.errors import Refuse
from streamapp.plugin.registered import make
from streamapp.services.text import columns
from streamapp.services.text.analyze import Analyze
from streamapp.services.text.keyword_rows import Keywords
from streamapp.services.text.keywords import rake

GERMAN = "Das ist ein sehr schönes deutsches Dokument über das Wetter in Hamburg."
EVERYTHING = {"analyze_sentiment": True, "extract_keywords": True, "detect_language": True}


def table(*texts, kind=None, **more):
    keys = [f"d{number}" for number in range(len(texts))]
    return pa.table({"document_id": keys, "text": pa.array(texts, kind or pa.string()), **more})


def test_the_example_s_config():
    config = {"extract_keywords": True, "analyze_sentiment": True}
    operation = make("text.analyze", config)
    assert (operation.scope, operation.parallel) == ("row", "processes")
    found = result(Analyze, config, documents=table(*REVIEWS))
    assert found.column_names == [
        "document_id", "text", "words", "sentences", "characters", "syllables", "readability",
        "sentiment", "sentiment_label", "sentiment_shares", "keywords",
    ]  # fmt: skip
    judge = SentimentIntensityAnalyzer().polarity_scores
    assert found["sentiment"].to_pylist() == [judge(text)["compound"] for text in REVIEWS]
    assert [
        "positive" if value >= 0.05 else "negative" if value <= -0.05 else "neutral"
        for value in found["sentiment"].to_pylist()
    ] == found["sentiment_label"].to_pylist()
    assert found["keywords"].to_pylist() == [rake([text], 10, 4).to_pylist()[0] for text in REVIEWS]


@pytest.mark.parametrize("cut", [1, 5])
def test_any_cut_of_the_rows_gives_the_same(cut):
    documents = table(*REVIEWS, None, GERMAN)
    whole = result(Analyze, EVERYTHING, documents=documents)
    operation, _ = made(Analyze, EVERYTHING, documents=documents)
    parts = [
        operation.run({"documents": documents.slice(first, cut)})
        for first in range(0, documents.num_rows, cut)
    ]
    assert pa.concat_tables(parts).equals(whole)


def test_null_has_nulls_and_nothing_has_no_readability():
    null, nothing = result(Analyze, EVERYTHING, documents=table(None, "")).to_pylist()
    assert {name for name, value in null.items() if value is not None} == {"document_id"}
    assert (nothing["words"], nothing["sentences"], nothing["readability"]) == (0, 0, None)


def test_what_is_of_english_is_null_for_other_languages():
    config = {**EVERYTHING, "languages": ["en", "de"]}
    [row] = result(Analyze, config, documents=table(GERMAN)).to_pylist()
    assert row["language"] == "de"
    assert row["words"] == 12
    assert {row[name] for name in ("readability", "sentiment", "keywords", "syllables")} == {None}


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_texts_of_other_types_are_the_same(kind):
    plain = result(Analyze, {}, documents=table(*REVIEWS[:4], None))
    other = result(Analyze, {}, documents=table(*REVIEWS[:4], None, kind=kind))
    assert other.drop_columns("text").equals(plain.drop_columns("text"))


def test_a_text_that_is_too_long_is_set_aside(monkeypatch):
    monkeypatch.setattr(columns, "CHARS_MAX", 20)
    work = TableWork()
    found = result(Analyze, {}, work, documents=table("short", "a" * 21, None))
    assert found["document_id"].to_pylist() == ["d0", "d2"]
    [(row, reason)] = work.bad_rows
    assert row["document_id"] == "d1"
    assert reason == "text is longer than 20 characters"
    assert work.done == 2


def test_a_row_for_each_keyword():
    config = {"keywords_max": 2, "keep": ["document_id"], "prefix": "k_"}
    found = result(Keywords, config, documents=table("Blue cheese and wine.", None, "the of"))
    assert found.to_pylist() == [
        {"document_id": "d0", "k_keyword": "blue cheese", "k_score": 4.0, "k_rank": 1},
        {"document_id": "d0", "k_keyword": "wine", "k_score": 1.0, "k_rank": 2},
    ]
    empty = result(Keywords, {}, documents=table())
    assert empty.column_names == ["document_id", "keyword", "score", "rank"]


@pytest.mark.parametrize(
    ("kind", "config", "columns", "said"),
    [
        (Analyze, {"column": "body"}, {}, "config.column: 'documents' has no 'body' column"),
        (Analyze, {"column": "n"}, {"n": [1]}, "config.column: 'n' of 'documents' is int64"),
        (Analyze, {}, {"words": [1]}, "has a column 'words' already .set config.prefix"),
        (Keywords, {"keep": ["x"]}, {}, "config.keep: 'documents' has no 'x' column"),
        (Keywords, {"keep": ["text", "text"]}, {}, "config.keep names a column twice"),
        (Keywords, {}, {"rank": [1]}, "has a column 'rank' already"),
    ],
)
def test_what_does_not_fit_is_refused_at_plan_time(kind, config, columns, said):
    with pytest.raises(Refuse, match=said):
        made(kind, config, documents=table("a", **columns))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"extract_keyword": True}, "extract_keyword.*did you mean 'extract_keywords'"),
        ({"keywords_max": 0}, "config.keywords_max"),
        ({"keyword_method": "tfidf"}, "config.keyword_method"),
    ],
)
def test_a_wrong_config_names_its_key(config, said):
    with pytest.raises(Refuse, match=said):
        make("text.analyze", config)


def test_an_unknown_language_is_refused_when_it_opens():
    with pytest.raises(Refuse, match="config.languages: 'xx' is no language"):
        made(Analyze, {"detect_language": True, "languages": ["xx"]}, documents=table("a"))
