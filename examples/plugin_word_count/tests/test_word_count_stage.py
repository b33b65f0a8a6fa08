from word_count_stage import word_count

from streamapp.plugin.testing import batch_of


def test_words_are_counted() -> None:
    columns = word_count({}).enrich(batch_of(text=["two words", "", None]))
    assert columns["word_count"].to_pylist() == [2, 0, None]
