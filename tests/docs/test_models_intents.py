"""What docs/models.md says of intents and sentiment: its commands run, its tables are the code's."""

import re
import shlex
import tomllib

import pytest
import word_vectors
from pages import page

from streamapp.cli.app import main
from streamapp.models import Registry
from streamapp.models.declaration import read_manifest
from streamapp.models.heads.calibration import Judged
from streamapp.models.manifest import ClassifyManifest, HeadManifest
from streamapp.plugin import vector_column
from streamapp.plugin.testing import HashClassifier, HashModels, batch_of
from streamapp.stages.intent import Intent
from streamapp.stages.sentiment import VALUES, Sentiment

SECTION = page("models").section("Intents and sentiment")


def first_cells(heading):
    rows = SECTION[SECTION.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`([^`]+)`", row.split("|")[1])[0] for row in rows]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The page's examples, each several times, in a folder with models of words."""
    monkeypatch.chdir(tmp_path)
    for name, place in {"HOME": "home", "MODELS_DIR": "models", "MODELS_CACHE": "cache"}.items():
        monkeypatch.setenv(f"STREAMAPP_{name}", str(tmp_path / place))
    word_vectors.repository(tmp_path / "models")
    head, *rows = SECTION.blocks("csv")[0].splitlines()
    labelled = [row.rsplit(",", 1) for row in rows]
    # Hashed words do not know weather from money: strangers are few, so that 9 of 10 can be right.
    times = {"unknown": 1}
    said = [
        f"{text} {'x' * n},{label}" for text, label in labelled for n in range(times.get(label, 12))
    ]
    (tmp_path / "examples.csv").write_text("\n".join([head, *said]))
    (tmp_path / "test.csv").write_text("\n".join([head, *rows]))
    return tmp_path


def test_the_commands_run(project, capsys):
    for line in SECTION.blocks("bash")[0].splitlines():
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    manifest = read_manifest(project / "models/head/support/1/manifest.toml")
    assert isinstance(manifest, HeadManifest)
    names = [name for name in first_cells("`[measured]`") if name in manifest.measured]
    assert names == first_cells("`[measured]`")
    assert manifest.labels == ["cancel", "refund"]


def test_every_option_that_is_named_is_one(capsys):
    for verb in ("train", "eval"):
        main(["intents", verb, "--help"])
    said = capsys.readouterr().out
    named = set(re.findall(r"--[a-z]+", SECTION))
    assert {"--calibrate", "--precision", "--kind"} <= named
    assert named <= set(re.findall(r"--[a-z]+", said))


def test_the_table_of_what_is_measured_is_whole():
    assert set(first_cells("`[measured]`")) == set(Judged._fields) - {"examples"}


def test_the_ways_are_the_stage_s_options():
    ways = first_cells("`[stages.intent]`")
    assert ways == ["labels", "head", "classifier"]
    assert set(ways) <= Intent.accepts.keys()
    for option in ("confidence_min", "margin_min"):
        assert f"`{option}`" in SECTION
        assert option in Intent.accepts


def test_the_workflow_s_options_open_a_head():
    models = {"head/support": ["cancel", "refund"], "head/feelings": ["negative", "positive"]}
    registry = HashModels(classifiers={name: HashClassifier(on) for name, on in models.items()})
    options = [tomllib.loads(text).get("stages") for text in SECTION.blocks("toml")]
    [intent, sentiment] = [one for one in options if one]
    for stage in (Intent(intent["intent"]), Sentiment(sentiment["sentiment"])):
        stage.declare(registry)
        stage.open(registry)
        vectors = registry.embedder().embed(["refund"])[0]
        assert len(stage.enrich(batch_of(embedding=vector_column(vectors))))
    [values] = re.findall(r"`values = (\{.*?\})`", SECTION)
    Sentiment({"head": "x", "values": tomllib.loads(f"values = {values}")["values"]})
    for label in ("negative", "positive", "neutral", "1 star", "5 stars"):
        assert label in VALUES
        assert f"`{label}`" in SECTION


def test_the_manifest_of_a_classifier_is_one(tmp_path):
    [text] = [block for block in SECTION.blocks("toml") if "task =" in block]
    path = tmp_path / "models/classify/feelings/1/manifest.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    manifest = Registry(tmp_path / "models", tmp_path / "cache").manifest("classify/feelings")
    assert isinstance(manifest, ClassifyManifest)
    assert manifest.files[1].sources == [f"file:{path.parent}/tokenizer.json"]


def test_the_stage_runs():
    names: dict = {}
    exec(SECTION.blocks("python")[0], names)  # the page's own
    stage = names["Topic"]()
    models = HashModels(classifiers={"head/support": HashClassifier(["cancel", "refund"])})
    stage.open(models)
    vectors = models.embedder().embed(["refund", "cancel"])[0]
    found = stage.enrich(batch_of(embedding=vector_column(vectors)))
    assert found["topic"].to_pylist() == ["refund", "cancel"]
    assert stage.models[0].task == "head"
