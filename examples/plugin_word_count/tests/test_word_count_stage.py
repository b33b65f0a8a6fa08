from word_count_stage import word_count

from streamapp.testing import Pipeline, batch_of
from streamapp.testing.contracts.stage import StageContract


def test_words_are_counted() -> None:
    columns = word_count({}).enrich(batch_of(text=["two words", "", None]))
    assert columns["word_count"].to_pylist() == [2, 0, None]


def test_on_the_way_of_an_event(streamapp: Pipeline) -> None:
    streamapp.use(word_count)
    streamapp.send("two words", {"type": "PageView", "url": "/help"})
    assert [row["word_count"] for row in streamapp.rows()] == [2, None]


class TestContract(StageContract):
    stage = word_count
