"""Which models a workflow needs before it can start."""

import pytest
from classifier_files import Classifiers

from streamapp.core.errors import Refuse
from streamapp.models.needed import needed
from streamapp.models.registry import Registry
from streamapp.topics.catalogue import defaults

ROUTES = """
[defaults]
embed = "embed/multilingual-e5-small@1"
[aliases]
quick = "classify/one"
[route.mood]
task = "classify"
models = ["quick", "classify/two"]
shadow = "classify/three"
"""
E5, ONE, TWO, THREE = (
    "embed/multilingual-e5-small@1", "classify/one@1", "classify/two@1", "classify/three@1",
)  # fmt: skip


@pytest.fixture
def registry(tmp_path):
    files = Classifiers(tmp_path).route(ROUTES)
    for name in ("one", "two", "three"):
        files.add(name, pull=False)
    return Registry([files.models_dir, defaults("models")], files.cache)


CASES = [
    ({"language": {}, "kinetics": {}}, []),
    ({"embed": {}}, [E5]),
    ({"embed": {"model": "minilm"}}, ["embed/all-minilm-l6-v2@1"]),
    ({"intent": {"labels": {}}}, [E5]),
    ({"sentiment": {}}, []),
    ({"sentiment": {"classifier": "quick"}}, [ONE]),
    ({"shadow": {"model": "minilm", "percent": 5.0}}, ["embed/all-minilm-l6-v2@1"]),
    ({"classify": {"columns": {"a": "mood", "b": "classify/one"}}}, [ONE, THREE, TWO]),
    ({"intent": {"route": "mood"}}, [ONE, THREE, TWO, E5]),
]


@pytest.mark.parametrize(("stages", "names"), CASES)
def test_what_stages_name_and_what_stands_for_it(registry, stages, names):
    assert needed(registry, stages, has_own=False) == names


def test_a_model_of_one_s_own_is_the_default_embedder(registry):
    assert needed(registry, {"embed": {}, "intent": {}}, has_own=True) == []


@pytest.mark.parametrize("stages", [{"embed": {"model": "none"}}, {"entities": {}}])
def test_what_is_not_there_is_refused(registry, stages):
    with pytest.raises(Refuse):
        needed(registry, stages, has_own=False)
