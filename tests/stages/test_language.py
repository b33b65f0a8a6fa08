import pytest

from streamapp.plugin import Refuse
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.stages.language import Language


def identified(texts, **options):
    stage = Language(options)
    stage.open(HashModels())
    columns = stage.enrich(batch_of(text=texts))
    assert {name: array.type for name, array in columns.items()} == stage.writes
    return columns["language"].to_pylist(), columns["language_confidence"].to_pylist()


def test_languages_of_sentences():
    codes, sure = identified(
        ["Where is the invoice for March?", "Onde está a fatura de março?", "Wo ist die Rechnung?"]
    )
    assert codes == ["en", "pt", "de"]
    assert all(0 < one <= 1 for one in sure)


def test_no_text_no_language():
    assert identified([None, "", " \n"]) == ([None] * 3, [None] * 3)


def test_a_set_of_languages_restricts_the_answer():
    codes, _ = identified(["Hallo", "Ciao", "x", "完全に日本語の文です"], languages=["en", "pt"])
    assert set(codes) <= {"en", "pt"}


def test_a_set_is_of_its_stage_alone():
    """All stages of a process have one model."""
    some, all_ = Language({"languages": ["en", "pt"]}), Language({})
    for stage in (all_, some):
        stage.open(HashModels())
    batch = batch_of(text=["Wo ist die Rechnung?"])
    assert all_.enrich(batch)["language"].to_pylist() == ["de"]
    assert some.enrich(batch)["language"].to_pylist() != ["de"]


def test_one_long_line_is_fine():
    assert identified(["the " * 100_000])[0] == ["en"]


@pytest.mark.parametrize(
    "options", [{"languages": ["klingon"]}, {"language": ["en"]}, {"languages": "en"}]
)
def test_wrong_options_are_refused(options):
    with pytest.raises(Refuse, match="stage 'language'") as caught:
        identified(["x"], **options)
    assert caught.value.fix
