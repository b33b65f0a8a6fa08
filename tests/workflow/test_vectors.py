"""Stages that mean vectors of two models by one column are told so, before and while they run."""

import pytest

from streamapp.core.errors import Halt, Refuse
from streamapp.core.model import ModelRef
from streamapp.plugin.testing import HashEmbedder, batch_of
from streamapp.stages.embed import Embed
from streamapp.stages.intent import Intent
from streamapp.workflow import PartitionState, Plan, Workflow

LABELS = {"cancel": "stop", "refund": "money back"}


class Named:
    """Two embedders of one length; what ``moving`` leads to changes at a turn."""

    def __init__(self):
        self.models = {name: HashEmbedder(16) for name in ("one", "two")}
        for name, model in self.models.items():
            model.ref = ModelRef("embed", name, 1, name)
        self.leads = {"one": "one", "two": "two", "moving": "one"}
        self.turns = []

    def embedder(self, name=None):
        return _Handle(self, name or "one")

    def embedding_dim(self, name=None):
        return 16

    def turn(self):
        for name, to in self.turns:
            self.leads[name] = to
        return bool(self.turns)


class _Handle:
    def __init__(self, owner, name):
        self._owner, self._name = owner, name

    def __getattr__(self, attribute):
        return getattr(self._owner.models[self._owner.leads[self._name]], attribute)


def plan(models, embed=None, intent=None):
    given = {"embed": {"model": embed} if embed else {}, "intent": {"labels": LABELS}}
    if intent:
        given["intent"]["model"] = intent
    workflow = Workflow(path="w.toml", stages=("embed", "intent"), options=given)
    return Plan(workflow, models, factories={"embed": Embed, "intent": Intent})


def test_two_models_of_one_length_are_refused_when_it_starts():
    made = plan(Named(), embed="two")
    with pytest.raises(Refuse, match="'intent' means vectors of .*one.* 'embed' those of .*two"):
        made.open()
    assert not made.is_open


@pytest.mark.parametrize(("embed", "intent"), [(None, None), ("one", None), ("moving", "one")])
def test_one_model_by_whatever_name_is_taken(embed, intent):
    made = plan(Named(), embed, intent)
    made.open()
    found, _ = made.run(batch_of(text=["stop"]), PartitionState(8), {})
    assert found.column("intent").to_pylist() == ["cancel"]


def test_a_change_that_parts_them_stops_before_a_batch():
    models = Named()
    made = plan(models, "moving", "one")
    made.open()
    models.turns = [("moving", "two")]
    with pytest.raises(Halt, match=r"stages\.intent.*same model"):
        made.run(batch_of(text=["stop"]), PartitionState(8), {})


def test_a_change_of_both_goes_on():
    models = Named()
    made = plan(models, "moving", "moving")
    made.open()
    models.turns = [("moving", "two")]
    found, _ = made.run(batch_of(text=["stop"]), PartitionState(8), {})
    assert found.column("intent").to_pylist() == ["cancel"]
