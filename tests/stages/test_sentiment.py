from streamapp.plugin.testing import HashModels, batch_of
from streamapp.stages.sentiment import Sentiment


def judged(texts, languages):
    import pyarrow as pa

    stage = Sentiment({})
    stage.open(HashModels())
    batch = batch_of(text=texts, language=pa.array(languages, pa.string()))
    columns = stage.enrich(batch)
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return [array.to_pylist() for array in columns.values()]


def test_english_is_judged_and_nothing_else():
    texts = ["I love it, great!", "This is horrible", "The parcel is blue", "Eu adoro isso", None]
    sentiment, sure, source = judged(texts, ["en", "en", "en", "pt", None])
    assert sentiment[0] > 0.5 > 0 > sentiment[1]
    assert sentiment[2] == 0
    assert sure[2] == 0
    assert 0 < sure[0] <= 1
    assert sentiment[3:] == sure[3:] == source[3:] == [None, None]
    assert source[:3] == ["lexicon:en"] * 3


def test_a_long_text_is_judged_by_its_beginning():
    assert judged(["good " * 100_000], ["en"])[0][0] > 0.9
