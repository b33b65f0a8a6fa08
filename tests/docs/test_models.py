"""What docs/models.md shows of the repository runs, and its tables are what the code has."""

import hashlib
import re
import shlex
import typing
from pathlib import Path

import numpy as np
import pytest
from model_servers import ModelServer
from pages import page
from tiny_models import affine, affine_model

from streamapp.cli.app import main
from streamapp.compose import registry
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.models import Registry, manifest
from streamapp.models.session import Session

ROOT = Path(__file__).parents[2]
PAGE = page("models")


def table(text, heading):
    """First cells of the rows below a heading."""
    rows = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in rows]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a graph, where models are added."""
    monkeypatch.chdir(tmp_path)
    for name, place in {"HOME": "home", "MODELS_DIR": "models", "MODELS_CACHE": "cache"}.items():
        monkeypatch.setenv(f"STREAMAPP_{name}", str(tmp_path / place))
    (tmp_path / "models").mkdir()
    affine_model(tmp_path / "risk.onnx")
    return tmp_path


def shell(text):
    """Run the lines of a block; what they ended with."""
    lines = [line for line in text.splitlines() if line]
    return {line: main(shlex.split(line, comments=True)[1:]) for line in lines}


def declared(folder, text):
    """Put a manifest of the page in its place."""
    values = re.findall(r'^(task|name|version) = "?([\w.-]+)"?', text, re.MULTILINE)
    task, name, version = (dict(values[:3])[key] for key in ("task", "name", "version"))
    path = folder / "models" / task / name / version / "manifest.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return f"{task}/{name}@{version}"


def models():
    return registry(load()[0])


def test_a_model_is_added_run_and_declared_by_hand(project, capsys):
    (lines,) = PAGE.section("Add a model").blocks("bash")
    assert set(shell(lines).values()) == {0}
    said = capsys.readouterr().out
    assert "claims of May" in said
    x = np.ones((2, 3), np.float32)
    scope = {"models": models(), "x": x}
    (code,) = PAGE.section("Add a model").blocks("python")
    exec(code, scope)
    np.testing.assert_allclose(scope["found"]["y"], affine(x)["y"])
    np.testing.assert_allclose(scope["total"], affine(x)["total"])
    scope["models"].close()

    (text,) = PAGE.section("Add a model").blocks("toml")
    name = declared(project, text)
    found = models().manifest(name)
    assert (found.version, found.lineage.run, found.languages) == (7, "mlflow:4711", ["en"])


def test_pull_and_verify(project, capsys):
    shell(PAGE.section("Add a model").blocks("bash")[0])
    (lines,) = PAGE.section("Sources").blocks("bash")
    assert set(shell(lines).values()) == {0}
    assert "tensor/risk@1: verified" in capsys.readouterr().out


def test_aliases(project, capsys):
    shell(PAGE.section("Add a model").blocks("bash")[0])
    (lines,) = PAGE.section("Versions and aliases").blocks("bash")
    assert set(shell(lines).values()) == {0}
    assert "tensor/risk@champion is @1 (was @2)" in capsys.readouterr().out
    assert [found.full_name for found in models().list()] == ["tensor/risk@1"]


def test_a_model_on_a_server(project, monkeypatch):
    (text,) = PAGE.section("Formats").blocks("toml")
    name = declared(project, text)
    with ModelServer() as server:
        monkeypatch.setenv("EMBED_URL", f"{server.url}/v1")
        monkeypatch.setenv("EMBED_KEY", "secret")
        known = models()
        vectors, _ = known.embedder(name).embed(["one", "two"])
        known.close()
        assert vectors.shape == (2, 4)
        assert server.tokens == ["Bearer secret"]


def test_a_build(project):
    joblib = pytest.importorskip("joblib", reason="not proven: no extra [sklearn] here")
    linear_model = pytest.importorskip("sklearn.linear_model")
    pytest.importorskip("skl2onnx", reason="not proven: no extra [sklearn] here")
    x = np.random.default_rng(0).standard_normal((40, 3))
    model = linear_model.LogisticRegression().fit(x, x[:, 0] > 0)
    joblib.dump(model, project / "model.joblib")
    content = (project / "model.joblib").read_bytes()
    (text,) = PAGE.section("Builders").blocks("toml")
    text = text.replace("SHA256", hashlib.sha256(content).hexdigest())
    name = declared(project, text.replace("bytes = 0", f"bytes = {len(content)}"))
    (project / "model.joblib").rename(project / "models/tensor/trained/1/model.joblib")
    assert models().pull(name).difference <= 1e-4
    assert [output.name for output in models().session(name).outputs] == ["label", "probabilities"]


def test_the_tables_are_what_there_is():
    assert [task for (task,) in table(PAGE, "task")] == list(manifest.TASKS)
    formats = {name for (name,) in table(PAGE.section("Formats"), "`format`")}
    assert formats <= set(typing.get_args(manifest.Format))
    builders = {name for (name,) in table(PAGE.section("Builders"), "`builder`")}
    assert builders == set(typing.get_args(manifest.BuildSpec.__annotations__["builder"]))
    code = "".join(path.read_text() for path in (ROOT / "streamapp/models").rglob("*.py"))
    for errors in table(PAGE.section("Sources"), "error"):
        for name in errors:
            assert f'"{name}"' in code


def test_every_source_is_told_to_who_writes_another(tmp_path):
    from streamapp.models.source import check_source

    with pytest.raises(Refuse) as caught:
        check_source("ftp://x")
    for sources in table(PAGE.section("Sources"), "source"):
        assert any(source.split(":")[0] in caught.value.fix for source in sources)


def test_names_of_the_page_are_names_of_the_code():
    assert {"run", "close", "inputs", "outputs"} <= set(dir(Session))
    assert {"session", "manifest", "pull", "files"} <= set(dir(Registry))
