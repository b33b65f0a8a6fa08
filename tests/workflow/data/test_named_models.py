"""Models by a project's names: of the registry, of a folder, and who each of them is."""

import pytest
from classifier_files import Classifiers

from streamapp.core.errors import Refuse
from streamapp.plugin.testing import HashModels
from streamapp.workflow.data import declared_models


def project(folder, text):
    (folder / "streamapp.toml").write_text(text)
    return folder


class Noted(HashModels):
    """Notes the names that it is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def classifier(self, name=None):
        self.asked.append(name)
        return super().classifier(None)


def test_a_declared_name_is_one_of_the_registry(tmp_path):
    models = Noted()
    named = declared_models(models, project(tmp_path, '[models.mine]\nmodel = "classify/x@2"\n'))
    for name in ("mine", "classify/y", None):
        try:
            named.classifier(name)
        except Refuse:
            assert models.asked
    assert models.asked == ["classify/x@2", "classify/y", None]
    assert named.resolve("mine") == "classify/x@2"
    assert named.embedder() is not None
    assert named.identity("classifier", "mine") == ""  # no registry, nothing is known


@pytest.mark.parametrize(("table", "why"), [
    ("", "has neither of model and path"),
    ('model = "a/b"\npath = "c"', "has both model and path"),
    ('modle = "a/b"', r"\[models.mine\]: Object contains unknown field"),
])  # fmt: skip
def test_a_wrong_declaration_is_refused(tmp_path, table, why):
    with pytest.raises(Refuse, match=why):
        declared_models(Noted(), project(tmp_path, f"[models.mine]\n{table}\n"))


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    named = declared_models(Noted(), project(tmp_path, '[models.mine]\npath = "weights"\n'))
    with pytest.raises(Refuse, match="weights has no manifest.toml"):
        named.classifier("mine")


def test_a_folder_of_ones_own_is_pulled_and_opened(tmp_path):
    """Beside it another registry knows a model of the same name."""
    there, own = Classifiers(tmp_path / "there"), Classifiers(tmp_path / "own")
    there.add("words", says="bad")
    own.add("words", version=2, says="good", pull=False)
    folder = own.models_dir / "classify" / "words" / "2"
    table = f'[models.mine]\npath = "{folder.relative_to(tmp_path)}"\n[models.theirs]\nmodel = "classify/words"\n'
    named = declared_models(there.registry(), project(tmp_path, table))
    before = named.identity("classifier", "mine")
    said = {
        name: named.classifier(name).classify(["a"])[0].argmax()
        for name in ("mine", "theirs", "classify/words")
    }
    assert said == {"mine": 0, "theirs": 1, "classify/words": 1}
    assert named.labels("mine") == ("good", "bad")
    assert str(named.classifier("mine").ref) != str(named.classifier("theirs").ref)
    mine, theirs = (named.identity("classifier", name) for name in ("mine", "theirs"))
    assert mine not in ("", before)  # its files are there now
    assert theirs == named.identity("classifier", "classify/words@1") not in ("", mine)
    assert named.identity("classifier", "classify/nope") == ""


def test_a_route_is_its_declaration_and_its_models(tmp_path):
    there = Classifiers(tmp_path)
    there.add("one")
    there.add("two")
    route = '[route.best]\ntask = "classify"\nmodels = ["classify/one", "classify/two"]\n'
    (there.models_dir / "routes.toml").write_text(route)
    first = declared_models(there.registry(), tmp_path).identity("router", "best")
    assert len(first) == 64
    assert declared_models(there.registry(), tmp_path).identity("router", "best") == first
    there.add("two", version=2)
    assert declared_models(there.registry(), tmp_path).identity("router", "best") != first
    assert declared_models(there.registry(), tmp_path).identity("router", "classify/one") != ""
