"""``streamapp models``: what is declared, what is here, and what cannot be fetched."""

import pytest

from streamapp.cli.checks import check_models
from streamapp.core.config import Settings


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


def test_a_manifest_that_cannot_be_read_is_listed_and_harms_no_other(models, clean):
    for name, text in (("good", SERVED), ("bad", "task = embed\n"), ("worse", 'task = "embed"')):
        (clean / f"m/tensor/{name}/1").mkdir(parents=True)
        (clean / f"m/tensor/{name}/1/manifest.toml").write_text(text)
    (clean / "m/tensor/good/aliases.json").write_text("{")
    result = models("list", "--models-dir", "m")
    assert result.code == 0
    for said in ("m/tensor/bad/1/manifest.toml:1:", "tensor/worse@1", "tensor/good@1", "fix:"):
        assert said in result.out
    rows = {row["name"]: row for row in models("list", "--models-dir", "m", "--json").json}
    assert set(rows) == {"tensor/good@1", "tensor/bad@1", "tensor/worse@1", "tensor/good"}
    assert rows["tensor/bad@1"]["file"].endswith("m/tensor/bad/1/manifest.toml")
    assert "lies in" in rows["tensor/worse@1"]["broken"] or "missing" in str(rows)
    assert models("show", "tensor/good", "--models-dir", "m").code == 0
    for verb in ("show", "pull"):
        result = models(verb, "tensor/bad", "--models-dir", "m")
        assert result.code == 2
        assert "m/tensor/bad/1/manifest.toml:1:" in result.err
    every = models("pull", "--all", "--models-dir", "m")
    assert every.code == 2
    assert "tensor/good@1: nothing to fetch; opened" in every.out


def test_the_doctor_names_a_broken_manifest(tmp_path):
    place = tmp_path / "m/tensor/bad/1/manifest.toml"
    place.parent.mkdir(parents=True)
    place.write_text("nonsense")
    settings = Settings(models_dir=tmp_path / "m", models_cache=tmp_path / "cache")
    check = next(check_models(settings))
    assert (check.status, check.fix) == ("warn", "streamapp models list")
    assert str(place) in check.detail


def test_verify_opens_what_is_no_file(models, clean):
    remote = '[remote]\nurl = "http://127.0.0.1:9"\nattempts = 1\n'
    places = {
        "good": SERVED,
        "bad": SERVED.replace("good", "bad").replace("tiny_models:affine", "tiny_models:nothing"),
        "lacks": SERVED.replace("good", "lacks").replace(
            "[inputs]", 'requires = ["zzz"]\n[inputs]'
        ),
        "away": SERVED.replace("good", "away").replace('"function"', '"v2"') + remote,
    }
    for name, text in places.items():
        (clean / f"m/tensor/{name}/1").mkdir(parents=True)
        (clean / f"m/tensor/{name}/1/manifest.toml").write_text(text)
    result = models("verify", "--models-dir", "m")
    assert result.code == 2
    said = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert said["tensor/good@1"] == "verified"
    assert "nothing" in said["tensor/bad@1"]
    assert said["tensor/lacks@1"] == "not proven: tensor/lacks@1 needs zzz, which is not installed"
    assert said["tensor/away@1"].startswith("not proven: ")
    assert models("verify", "tensor/away", "tensor/lacks", "--models-dir", "m").code == 0
    assert models("pull", "tensor/bad", "--models-dir", "m").code == 2
    pulled = models("pull", "tensor/away", "--models-dir", "m").out
    assert "nothing to fetch; asked by `streamapp models verify`" in pulled


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


SERVED = """\
task = "tensor"
name = "good"
version = 1
about = "x"
licence = "MIT"
format = "function"
function = "tiny_models:affine"
[inputs]
x = "float32[n,3]"
[outputs]
y = "float32[n,3]"
"""
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


def test_a_server_that_does_not_answer_is_listed_with_the_reason(models, clean):
    (clean / "m/tensor/far/1").mkdir(parents=True)
    remote = 'format = "v2"\n[remote]\nurl = "http://127.0.0.1:9"\n'
    said = SERVED.partition("format")[0].replace('"good"', '"far"')
    (clean / "m/tensor/far/1/manifest.toml").write_text(said + remote)
    shown = models("list", "--models-dir", "m").out
    assert "(away, see below)" in shown
    assert "does not answer" in shown
    assert "away" not in models("list", "--no-ask", "--models-dir", "m").out
    (row,) = models("list", "--json", "--models-dir", "m").json
    assert "does not answer" in row["away"]
