"""The stage ``text`` says of events what text.analyze says of documents."""

from typing import ClassVar

import pytest

from streamapp.plugin import Refuse
from streamapp.plugin.testing import HashModels, batch_of
from streamapp.services.text.stage import Text
from streamapp.stages.language import Language
from streamapp.testing.contracts.stage import StageContract


class TestText(StageContract):
    stage = "text"
    upstream: ClassVar = [Language]
    tolerance = 0


def test_columns_of_events():
    stage = Text({"keywords_max": 1})
    stage.open(HashModels())
    batch = batch_of(text=["Old red wine and bread.", "Guten Tag", None, ""])
    columns = stage.enrich(batch.with_columns({"language": strings("en", "de", None, "en")}))
    assert {name: column.type for name, column in columns.items()} == dict(stage.writes)
    assert columns["words"].to_pylist() == [5, 2, None, None]
    assert columns["keywords"].to_pylist() == [
        [{"text": "old red wine", "score": 9.0}], None, None, None
    ]  # fmt: skip
    assert columns["readability"].is_valid().to_pylist() == [True, False, False, False]


def test_columns_can_be_left_out():
    stage = Text({"keywords": False, "readability": False})
    assert list(stage.writes) == ["words", "sentences", "characters", "syllables"]
    with pytest.raises(Refuse, match="did you mean keywords"):
        Text({"keyword": True})


def strings(*values):
    import pyarrow as pa

    return pa.array(values, pa.string())
