"""Extractors by the registry: GLiNER and spaCy, what a pull proves of them, and named errors."""

import importlib.util
import json
import sys
import types
import zipfile

import msgspec
import pytest
from gliners import FOLDER, golden, manifest
from shelves import Shelf

from streamapp.core.errors import Refuse
from streamapp.models import entities
from streamapp.models.adding import Offer, add
from streamapp.models.entities.spacy import SpacyExtractor
from streamapp.models.manifest import EntitiesManifest, TensorManifest

FILES = ("model.onnx", "tokenizer.json", "gliner_config.json")


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path)


@pytest.mark.parametrize("mode", ["span", "token"])
def test_gliner_is_pulled_opened_once_and_finds(shelf, mode):
    name = shelf.put(manifest(mode), FOLDER / mode, *FILES)
    registry = shelf.registry(name)
    extractor = registry.extractor(name)
    assert registry.extractor("entities/tiny") is extractor
    assert str(extractor.ref).startswith("entities/tiny@1+")
    case = next(one for one in golden(mode) if one["entities"])
    [found], _ = extractor.extract(
        [case["text"]],
        case["labels"],
        threshold=case["threshold"],
        flat=case["flat_ner"],
        multi_label=case["multi_label"],
    )
    assert [(e.start, e.end) for e in found] == [(e["start"], e["end"]) for e in case["entities"]]


def test_what_is_missing_is_named(shelf):
    name = shelf.put(manifest("span"), FOLDER / "span", *FILES)
    other = TensorManifest(name="t", version=1, about="", licence="", model="model.onnx")
    shelf.put(other, FOLDER / "span", "model.onnx")
    registry = shelf.registry()
    with pytest.raises(Refuse, match="routes.toml has no default for entities"):
        registry.extractor()
    with pytest.raises(Refuse, match="entities/tiny@1") as refused:
        registry.extractor(name)
    assert refused.value.code == "models.not_pulled"
    with pytest.raises(Refuse, match="no model is called 'entities/tyni'"):
        registry.extractor("entities/tyni")
    with pytest.raises(Refuse, match="is a model for tensor, not for entities"):
        registry.extractor("tensor/t")


def test_a_pull_refuses_a_manifest_that_its_model_contradicts(shelf):
    name = shelf.put(manifest("span", width_max=8), FOLDER / "span", *FILES)
    with pytest.raises(Refuse, match="width_max is 8 in the manifest, and 12"):
        shelf.registry(name)
    with pytest.raises(Refuse, match="is not in"):
        shelf.registry().extractor(name)


def test_a_pull_refuses_a_promise_of_invariance_that_does_not_hold(shelf, monkeypatch):
    monkeypatch.setattr(entities, "APART_MAX", -1.0)
    name = shelf.put(manifest("span"), FOLDER / "span", *FILES)
    with pytest.raises(Refuse, match="scores depend on its batch") as refused:
        shelf.registry(name)
    assert "batch_invariant = false" in refused.value.fix
    other = manifest("span", name="other", batch_invariant=False)
    shelf.registry(shelf.put(other, FOLDER / "span", *FILES))


def test_a_gliner_is_added_with_what_its_config_says(shelf, tmp_path):
    folder = FOLDER / "token"
    offer = Offer(
        "entities", "mine", folder / "model.onnx", folder / "tokenizer.json",
        files=[folder / "gliner_config.json"],
    )  # fmt: skip
    added = add(shelf.registry(), shelf.models_dir, offer)
    assert (added.mode, added.words_max, added.config) == ("token", 384, "gliner_config.json")
    assert added.batch_invariant
    found, _ = (
        shelf.registry()
        .extractor("entities/mine")
        .extract(["Ann met Bob"], ["person"], threshold=0.1)
    )
    assert found[0]


# spaCy


def spacy_manifest(**changes):
    plain = EntitiesManifest(
        name="people", version=1, about="", licence="MIT", format="spacy", model="model.whl"
    )
    return msgspec.structs.replace(plain, **changes)


def wheel(path, folder=None, configs=("people/people-1.0",)):
    """A pipeline as it lies in a wheel."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("people-1.0.dist-info/METADATA", "Name: people")
        for config in configs:
            archive.writestr(f"{config}/config.cfg", "[nlp]")
        for file in folder.rglob("*") if folder else ():
            if file.is_file():
                archive.write(file, f"people/people-1.0/{file.relative_to(folder)}")
    return path


class FakePipeline:
    """What a pipeline of spaCy's does, by capital letters."""

    pipe_names = ("tok2vec", "ner")
    meta = types.MappingProxyType(
        {"performance": {"ents_p": 0.7, "ents_per_type": {"PERSON": {"p": 0.9}}}}
    )

    def get_pipe(self, name):
        return types.SimpleNamespace(labels=("PERSON", "PLACE"))

    def pipe(self, texts, batch_size):
        for text in texts:
            found = []
            for word in text.split():
                if word[0].isupper():
                    start, label = text.index(word), "PLACE" if word == "Rome" else "PERSON"
                    span = {"start_char": start, "end_char": start + len(word), "text": word}
                    found.append(types.SimpleNamespace(**span, label_=label))
            yield types.SimpleNamespace(ents=found)


@pytest.fixture
def spacy(monkeypatch):
    """A module that loads FakePipeline, and remembers from where."""
    fake = types.ModuleType("spacy")
    fake.__version__, fake.loaded, fake.pipeline = "3.8.0", [], FakePipeline()

    def load(folder, exclude):
        fake.loaded.append(sorted(path.name for path in folder.iterdir()))
        return fake.pipeline

    fake.load = load
    monkeypatch.setitem(sys.modules, "spacy", fake)
    return fake


def test_a_pipeline_from_its_wheel(spacy, tmp_path, shelf):
    wheel(tmp_path / "model.whl")
    name = shelf.put(spacy_manifest(), tmp_path, "model.whl")
    extractor = shelf.registry(name).extractor(name)
    assert spacy.loaded == [["config.cfg"]] * 2  # by the pull, and to be used
    assert extractor.labels == ("PERSON", "PLACE")
    found, cut = extractor.extract(["Ann met Bob in Rome", None, ""], [])
    assert [(e.start, e.end, e.text, e.label, e.score) for e in found[0]] == [
        (0, 3, "Ann", "PERSON", 0.9),
        (8, 11, "Bob", "PERSON", 0.9),
        (15, 19, "Rome", "PLACE", 0.7),
    ]
    assert found[1:] == [[], []]
    assert not cut.any()


@pytest.mark.parametrize(
    ("asked", "threshold", "kept"),
    [
        (["PLACE"], None, ["Rome"]),
        ([], 0.8, ["Ann"]),
        ([], 1, []),
        ([], {"PLACE": 0.8}, ["Ann"]),
    ],
)
def test_a_pipeline_s_labels_and_scores(spacy, tmp_path, asked, threshold, kept):
    wheel(tmp_path / "model.whl")
    extractor = SpacyExtractor(None, spacy_manifest(), tmp_path)
    [found], _ = extractor.extract(["Ann in Rome"], asked, threshold=threshold)
    assert [e.text for e in found] == kept


def test_what_a_pipeline_cannot_do_is_refused(spacy, tmp_path):
    wheel(tmp_path / "model.whl")
    with pytest.raises(Refuse, match="knows no label 'invoice'") as refused:
        SpacyExtractor(None, spacy_manifest(), tmp_path).extract([], ["invoice"])
    assert "GLiNER" in refused.value.fix
    with pytest.raises(Refuse, match="knows no label 'DATE'"):
        SpacyExtractor(None, spacy_manifest(labels=["DATE"]), tmp_path)
    spacy.pipeline.pipe_names = ("tagger",)
    with pytest.raises(Refuse, match="no ner"):
        SpacyExtractor(None, spacy_manifest(), tmp_path)


def test_a_wheel_that_is_none_is_refused(spacy, tmp_path, monkeypatch):
    (tmp_path / "model.whl").write_bytes(b"PK nothing")
    with pytest.raises(Refuse, match="model.whl"):
        SpacyExtractor(None, spacy_manifest(), tmp_path)
    wheel(tmp_path / "model.whl", configs=("a", "b"))
    with pytest.raises(Refuse, match="2 pipelines"):
        SpacyExtractor(None, spacy_manifest(), tmp_path)


def test_without_spacy_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    wheel(tmp_path / "model.whl")
    with pytest.raises(Refuse, match="needs spaCy") as refused:
        SpacyExtractor(None, spacy_manifest(), tmp_path)
    assert "streamapp[ner]" in refused.value.fix


def test_a_pipeline_of_spacy_itself(tmp_path):
    """A pipeline that learned two sentences by heart, saved by spaCy and read from a wheel."""
    if importlib.util.find_spec("spacy") is None:
        pytest.skip("spaCy is not installed: pip install 'streamapp[ner]'")
    import spacy as real
    from spacy.training import Example

    pipeline = real.blank("en")
    ner = pipeline.add_pipe("ner")
    said = [("Ann lives in Rome", [(0, 3, "PERSON"), (13, 17, "PLACE")]),
            ("Bob went to Oslo", [(0, 3, "PERSON"), (12, 16, "PLACE")])]  # fmt: skip
    examples = [
        Example.from_dict(pipeline.make_doc(text), {"entities": found}) for text, found in said
    ]
    ner.add_label("PERSON")
    pipeline.initialize(lambda: examples)
    for _ in range(40):
        pipeline.update(examples)
    pipeline.meta["performance"] = {"ents_p": 0.8}
    pipeline.to_disk(tmp_path / "saved")
    wheel(tmp_path / "model.whl", tmp_path / "saved", configs=())
    extractor = SpacyExtractor(None, spacy_manifest(), tmp_path)
    found, _ = extractor.extract([text for text, _ in said], [])
    assert [[(e.start, e.end, e.label) for e in one] for one in found] == [one for _, one in said]
    assert json.dumps(found[0][0].score) == "0.8"
