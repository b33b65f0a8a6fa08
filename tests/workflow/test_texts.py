"""A text to search gets the vector that an event with that text gets."""

from collections.abc import Mapping

import numpy as np
import pytest

from streamapp.core.errors import Refuse
from streamapp.plugin import BaseStage, float32_vector, string, vector_column
from streamapp.workflow.texts import text_embedder


class Lengths(BaseStage):
    name = "lengths"
    reads = ("text",)
    writes: Mapping[str, object] = {"embedding": float32_vector(2)}
    opened = 0

    def open(self, models):
        self.opened += 1
        if models == "broken":
            raise ValueError("no weights")

    def enrich(self, batch):
        rows = [[len(text), 1] if text.strip() else [np.nan] * 2 for text in batch.strings("text")]
        return {"embedding": vector_column(np.array(rows, np.float32))}


class Words(BaseStage):
    name = "words"
    reads = ("text",)
    writes: Mapping[str, object] = {"words": string}


class Later(Lengths):
    reads = ("text", "words")


def test_the_stage_that_writes_embeddings_embeds_and_is_opened_once():
    stage = Lengths()
    embed = text_embedder([Words(), stage], models=None)
    assert stage.opened == 0
    assert embed(["abc", "a"]).tolist() == [[3, 1], [1, 1]]
    assert np.isnan(embed([" "])).all()
    assert stage.opened == 1


@pytest.mark.parametrize("stages", [[], [Words()], [Words(), Later()]])
def test_no_stage_embeds_a_text_alone(stages):
    assert text_embedder(stages, models=None) is None


def test_a_stage_that_does_not_open_says_so_each_time():
    embed = text_embedder([Lengths()], models="broken")
    for _ in range(2):
        with pytest.raises(Refuse, match=r"stage 'lengths' fails in open: ValueError: no weights"):
            embed(["abc"])
