"""``streamapp models``: what is declared, what is here, and what cannot be fetched."""

import pytest


@pytest.fixture
def models(run, tmp_path):
    """``streamapp models VERB ...`` with an empty cache."""
    return lambda *arguments: run("models", *arguments, "--models-cache", tmp_path / "cache")


def test_list(models):
    listed = {row["name"]: row for row in models("list", "--json").json}
    default = listed["embed/multilingual-e5-small@1"]
    assert (default["default"], default["pulled"]) == (True, False)
    table = models("list").out
    assert all(name in table for name in listed)
    assert table.count("not pulled") == len(listed)


def test_show(models):
    said = models("show", "embed/all-minilm-l6-v2", "--json").json
    assert said["manifest"]["dim"] == 384
    assert said["status"]["pulled"] is False
    text = models("show").out
    assert "embed/multilingual-e5-small@1 (default)" in text
    assert "streamapp models pull" in text
    assert "pypi:" in text


def test_an_unknown_name_gets_a_suggestion(models):
    for verb in ("show", "pull"):
        result = models(verb, "embed/all-minilm-l6-v3")
        assert result.code == 2
        assert "did you mean" in result.err


def test_a_manifest_that_cannot_be_read_is_named(models, clean):
    (clean / "m/embed/x/1").mkdir(parents=True)
    (clean / "m/embed/x/1/manifest.toml").write_text("task = embed\n")
    result = models("list", "--models-dir", "m")
    assert result.code == 2
    assert "m/embed/x/1/manifest.toml:1:" in result.err


def test_pull_asks_the_registry_for_each_name(models, monkeypatch):
    pulled = []

    def pull(self, name, progress):
        progress("model.onnx", 1, 2)
        pulled.append(name)
        return self.status(name)

    monkeypatch.setattr("streamapp.models.Registry.pull", pull)
    assert models("pull").code == 0
    assert pulled == ["embed/multilingual-e5-small@1"]
    assert len(models("pull", "--all", "--json").json) == len(models("list", "--json").json)
    assert sorted(set(pulled)) == sorted(row["name"] for row in models("list", "--json").json)


def test_a_source_that_does_not_answer(models, clean):
    folder = clean / "m/embed/x/1"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST)
    result = models("pull", "embed/x", "--models-dir", "m")
    assert result.code == 75
    assert "no source of embed/x@1 gave model.onnx" in result.err


MANIFEST = """\
task = "embed"
name = "x"
version = 1
about = "nothing"
licence = "MIT"
upstream = "https://example.com"
model = "model.onnx"
tokenizer = "tokenizer.json"
inputs = {}
outputs = {}
pooling = "mean"
tokens_max = 8
dim = 4
batch_invariant = true

[[files]]
name = "model.onnx"
sha256 = "SHA256"
bytes = 1
sources = ["file:/nowhere/model.onnx"]

[[files]]
name = "tokenizer.json"
sha256 = "SHA256"
bytes = 1
sources = ["file:/nowhere/tokenizer.json"]
""".replace("SHA256", "0" * 64)
