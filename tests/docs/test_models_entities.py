"""The sections "Entities" and "BGE-M3" of docs/models.md: commands, workflows, SQL and numbers."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
from gliners import FOLDER
from pages import page
from sinks import DuckSink, event, record
from tiny_bge_m3 import DIM, weights, write_graph, write_tokenizer

from streamapp.cli.app import main
from streamapp.compose import registry
from streamapp.core.config import load
from streamapp.models.entities import gliner
from streamapp.models.manifest import EntitiesManifest
from streamapp.plugin.testing import batch_of
from streamapp.stages.embed import SPARSE_MAX, Embed
from streamapp.stages.entities import ENTITIES_MAX, ENTITY, Entities
from streamapp.stages.fields import KINDS, number
from streamapp.workflow import load_workflow

ROOT = Path(__file__).parents[2]
PAGE = page("models")
TEXT = "Ann Lee met Bob in Rome.\nNúmero da Nota: 7\nValor Total: R$ 1.234,56\nCNPJ: 12.345/0001"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder where models are added."""
    monkeypatch.chdir(tmp_path)
    for name, place in {"HOME": "home", "MODELS_DIR": "models", "MODELS_CACHE": "cache"}.items():
        monkeypatch.setenv(f"STREAMAPP_{name}", str(tmp_path / place))
    (tmp_path / "models").mkdir()
    return tmp_path


def shell(title):
    (lines,) = PAGE.section(title).blocks("bash")
    for line in lines.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line


def workflow(title, folder):
    (text,) = PAGE.section(title).blocks("toml")
    (folder / "workflow.toml").write_text(text)
    return load_workflow(folder / "workflow.toml")


def stored(folder, columns, texts, types):
    """A store with the columns, and the SQL of the page run in it."""
    rows = [
        event(place, text=t, type=k) for place, (t, k) in enumerate(zip(texts, types, strict=True))
    ]
    store = DuckSink(folder).open(columns={name: column.type for name, column in columns.items()})
    store.write([record(0, len(texts), rows, extra=dict(columns))])
    return store


def test_gliner_is_added_runs_as_the_workflow_says_and_is_queried(project):
    for file in (FOLDER / "span").iterdir():
        shutil.copy(file, project)
    shell("Entities")
    declared = workflow("Entities", project)
    options = declared.options["entities"]
    random = {"threshold": 0.3, "thresholds": {}, "nested": True, "multi_label": True}
    stage = Entities(options | random)  # weights are random: everything is something
    stage.open(registry(load()[0]))
    texts, types = [TEXT, TEXT, None], ["message", "invoice", "message"]
    columns = stage.enrich(batch_of(text=texts, type=types))
    named = re.findall(r"^\| `(\w+)` \|", PAGE.section("Entities"), re.MULTILINE)
    assert list(columns) == named == list(stage.writes)
    with stored(project, columns, texts, types) as store, store.reader() as reader:
        entities, fields = (
            reader.execute(statement.replace("::decimal(12, 2)", "::double")).fetchall()
            for statement in PAGE.section("Entities").blocks("sql")
        )
    assert entities
    assert [row[0] for row in fields] == ["id-1"]


def test_the_workflow_of_the_page_is_what_it_says(project):
    options = workflow("Entities", project).options["entities"]
    stage = Entities(options)
    assert set(stage._wants.of("message").labels) == {"person", "organization", "location"}
    assert stage._wants.of("message").threshold == {
        "person": 0.4,
        "organization": 0.4,
        "location": 0.6,
    }
    assert stage._wants.of("order.new").labels == ("product", "address")
    assert stage._wants.of("invoice").labels == ("Número da Nota", "Valor Total", "CNPJ", "Item")
    assert stage._wants.of("invoice").fields["items"].many


def test_the_numbers_of_entities_are_the_code_s():
    text = " ".join(PAGE.section("Entities").split())
    plain = EntitiesManifest(name="n", version=1, about="", licence="", model="m")
    for said in (
        f"`entities_max` ({ENTITIES_MAX})",
        f"at once ({plain.words_max} and {plain.tokens_max})",
        f"up to {gliner.TEXT_WORDS_MAX:,} words",
        "`{" + ", ".join(field.name for field in ENTITY) + "}`",
    ):
        assert said in text, said
    assert set(KINDS) == {"text", "number", "digits"}
    assert f"`R$ 1.234,56` is {number('R$ 1.234,56')}" in text
    predictions = sum(
        (FOLDER / mode / "golden.json").read_text().count('"threshold"')
        for mode in ("span", "token")
    )
    assert f"to {predictions} of its predictions" in text


def test_the_pipeline_of_the_page_is_declared():
    place = ROOT / "models/entities/en-core-web-sm/1/manifest.toml"
    declared = tomllib.loads(place.read_text())
    assert (declared["format"], declared["languages"]) == ("spacy", ["en"])
    assert f"`entities/{declared['name']}`" in PAGE.section("Entities")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert any(one.startswith("spacy") for one in extras["ner"])


def test_bge_m3_is_added_and_its_weights_are_compared(project):
    w = weights()
    write_graph(project / "model.onnx", w, "vecs")
    write_graph(project / "states.onnx", w, "states")
    write_tokenizer(project / "tokenizer.json")
    np.savez(project / "sparse_linear.npz", weight=w["sparse"].T, bias=w["sparse_bias"])
    (lines,) = PAGE.section("BGE-M3").blocks("bash")
    lines = lines.replace("sparse_linear.pt", "sparse_linear.npz").replace("=2048", "=64")
    for line in lines.splitlines():
        assert main(shlex.split(line)[1:]) == 0, line
    options = workflow("BGE-M3", project).options["embed"]
    models = registry(load()[0])
    stage = Embed(options)
    stage.declare(models)
    stage.open(models)
    texts = ["refund now", "where is my parcel", "my parcel was sent"]
    columns = stage.enrich(batch_of(text=texts))
    assert columns["embedding"].type.list_size == DIM == 1024
    other = models.embedder("embed/bge-m3-states").embed_sparse(texts)[2]
    for one, two in zip(columns["sparse"].to_pylist(), other, strict=True):
        assert {w["token"]: w["weight"] for w in one} == pytest.approx(two, abs=1e-5)
    columns = {"sparse": columns["sparse"]}
    with stored(project, columns, texts, ["message"] * 3) as store, store.reader() as reader:
        (statement,) = PAGE.section("BGE-M3").blocks("sql")
        found = reader.execute(statement).fetchall()
    assert [name for name, _ in found] == ["id-2"]
    assert onnx.load(project / "model.onnx").graph.output[0].name == "dense_vecs"


def test_the_numbers_of_bge_m3_are_the_code_s():
    text = PAGE.section("BGE-M3")
    assert f"`sparse_max` ({SPARSE_MAX})" in text
    assert "1,024" in text
