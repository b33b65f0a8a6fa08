"""``streamapp models add``, ``promote``, ``rollback``, ``rm`` and ``verify``."""

import pytest
from tiny_models import affine_model


@pytest.fixture
def models(run, clean):
    """``streamapp models VERB ...`` in a project's folder, with a cache and a home of its own."""
    affine_model(clean / "risk.onnx")
    (clean / "models").mkdir()
    places = ("--models-dir", "models", "--models-cache", "cache", "--home", "home")
    return lambda verb, *arguments: run("models", verb, *arguments, *places)


@pytest.fixture
def added(models):
    """Two versions of tensor/risk."""
    for _ in range(2):
        assert models("add", "risk.onnx", "--task", "tensor", "--name", "risk").code == 0
    return models


def names(models):
    return {row["name"]: row for row in models("list", "--json").json}


def test_add_declares_pulls_and_says_where(models, clean):
    result = models(
        "add", "risk.onnx", "--task", "tensor", "--name", "risk", "--licence", "MIT",
        "--parent", "tensor/risk@0", "--run", "r7", "--data", "claims", "--about", "of a claim",
        "--set", "tokens_max=7", "--set", "upstream=here",
    )  # fmt: skip
    assert result.code == 0
    assert "tensor/risk@1: declared in models/tensor/risk/1/manifest.toml" in result.out.replace(
        f"{clean}/", ""
    )
    shown = models("show", "tensor/risk", "--json").json
    manifest = shown["manifest"]
    assert (manifest["licence"], manifest["tokens_max"], manifest["upstream"]) == ("MIT", 7, "here")
    assert manifest["lineage"]["run"] == "r7"
    assert manifest["lineage"]["created"].endswith("Z")
    assert len(manifest["lineage"]["source_sha256"]) == 64
    assert shown["status"]["pulled"]
    text = models("show", "tensor/risk").out
    for part in ("x = float32[?,3]", "total = float32[?]", "claims", "MIT", "risk.onnx"):
        assert part in text


def test_add_says_what_is_wrong_and_leaves_nothing(models, clean):
    (clean / "empty.txt").touch()
    cases = [
        (("nothing.onnx", "--task", "tensor"), "no file"),
        (("risk.onnx", "--task", "classify"), "labels"),
        (("risk.onnx", "--task", "chat"), "--task one of embed, entities, classify, head, tensor"),
        (("risk.onnx", "--task", "tensor", "--set", "foo=3"), "leave it out"),
        (("risk.onnx", "--task", "tensor", "--set", "dim=3"), "fix: leave it out"),
        (("risk.onnx", "--task", "tensor", "--tokenizer", "risk.onnx"), "fix: leave it out"),
        (("risk.onnx", "--task", "tensor", "--with", "empty.txt"), "empty.txt is empty"),
        (("risk.onnx", "--task", "tensor", "--with", ""), "the path is empty"),
        (("", "--task", "tensor"), "the path is empty"),
        (
            ("risk.onnx", "--task", "tensor", "--version", "1000000000"),
            "a whole number <= 999999999",
        ),
        (("risk.onnx", "--task", "tensor", "--about", "a\udcff"), "is not UTF-8"),
        (("risk.onnx", "--task", "tensor", "--set", "dim"), "no KEY=VALUE"),
        (("risk.onnx", "--task", "tensor", "--set", 'inputs={x="float32[n,4]"}'), "float32[?,3]"),
    ]
    for arguments, says in cases:
        result = models("add", *arguments, "--name", "risk")
        assert result.code == 2
        assert says in result.err
        assert "fix:" in result.err
        assert names(models) == {}
        assert not list((clean / "models").iterdir())


def test_add_makes_the_folder_of_models_where_there_is_none(run, clean):
    affine_model(clean / "risk.onnx")
    asked = ("models", "add", "risk.onnx", "--name", "risk", "--models-cache", "cache")
    wrong = run(*asked, "--task", "tensor", "--set", "foo=3", "--models-dir", "new")
    assert (wrong.code, (clean / "new").exists()) == (2, False)
    result = run(*asked, "--task", "tensor", "--models-dir", "new/models")
    assert result.code == 0
    assert (clean / "new/models/tensor/risk/1/manifest.toml").is_file()
    listed = run("models", "list", "--models-dir", "nowhere")
    assert "streamapp models add" in listed.err
    no_folder = run(*asked, "--task", "tensor", "--models-dir", "risk.onnx/models")
    assert no_folder.code == 2
    assert "risk.onnx/models: Not a directory" in no_folder.err


def test_promote_and_rollback(added):
    first = added("promote", "tensor/risk@1")
    assert first.out.strip() == "tensor/risk@champion is @1 (new)"
    assert added("promote", "tensor/risk@2").out.strip() == "tensor/risk@champion is @2 (was @1)"
    assert "(as before)" in added("promote", "tensor/risk@2").out
    added("promote", "tensor/risk@1", "--alias", "challenger")
    assert "challenger is @1\n" in added("show", "tensor/risk@champion").out
    rows = names(added)
    assert rows["tensor/risk@2"]["aliases"] == ["champion"]
    assert rows["tensor/risk@1"]["aliases"] == ["challenger"]
    text = added("show", "tensor/risk@champion").out
    assert "champion is @2, was @1" in text
    assert text.count("champion") == 1  # an alias has one row
    back = added("rollback", "tensor/risk", "--json").json
    assert back == {"name": "tensor/risk@1", "alias": "champion", "before": 2}
    result = added("rollback", "tensor/risk")
    assert result.code == 2
    assert "never was another" in result.err


@pytest.mark.parametrize("name", ["tensor/risk@1", "tensor/risk@2", "tensor/risk@champion"])
def test_rollback_takes_no_version(added, name):
    added("promote", "tensor/risk@1")
    added("promote", "tensor/risk@2")
    result = added("rollback", name)
    assert result.code == 2
    assert name in result.err
    assert "streamapp models rollback tensor/risk --alias champion" in result.err
    assert names(added)["tensor/risk@2"]["aliases"] == ["champion"]


@pytest.mark.parametrize("verb", ["show", "pull", "verify", "promote", "rollback", "rm"])
def test_an_empty_name_is_not_the_default_model(added, clean, verb):
    (clean / "models/routes.toml").write_text('[defaults]\nembed = "tensor/risk"\n')
    result = added(verb, "")
    assert result.code == 2
    assert "the name is empty" in result.err
    assert not (clean / "models/tensor/risk/aliases.json").exists()


def test_without_a_licence_it_is_not_declared(models):
    result = models("add", "risk.onnx", "--task", "tensor", "--name", "risk", "--licence", "")
    assert result.code == 0, result.err
    assert models("show", "tensor/risk", "--json").json["manifest"]["licence"] == "not declared"


def test_an_alias_is_one_word(added):
    result = added("promote", "tensor/risk@1", "--alias", "champion\n")
    assert result.code == 2
    assert "cannot be an alias" in result.err


def test_rm_of_several_versions_asks_which(added):
    result = added("rm", "tensor/risk")
    assert result.code == 2
    assert "'tensor/risk' is several versions: 1, 2" in result.err
    assert len(names(added)) == 2
    added("rm", "tensor/risk@2")
    assert added("rm", "tensor/risk").code == 0  # the only one
    assert names(added) == {}


def test_pull_takes_names_or_all(added):
    result = added("pull", "tensor/risk@1", "--all")
    assert result.code == 2
    assert "--all" in result.err


def test_a_task_that_there_is_not_is_no_empty_list(added):
    result = added("list", "--task", "nope")
    assert result.code == 2
    assert "'nope'" in result.err
    assert "embed, entities, classify" in result.err
    assert added("list", "--task", "chat", "--json").json == []


def test_an_unknown_alias(added):
    for verb in ("show", "pull"):
        result = added(verb, "tensor/risk@champion")
        assert result.code == 2
        assert "no alias 'champion'" in result.err
        assert "models promote tensor/risk@2 --alias champion" in result.err


def test_rm(added):
    added("promote", "tensor/risk@1")
    result = added("rm", "tensor/risk@1")
    assert result.code == 2
    assert "alias champion" in result.err
    assert "tensor/risk@1" in names(added)
    removed = added("rm", "tensor/risk@2", "--json").json["removed"]
    assert len(removed) == 2
    assert added("rm", "tensor/risk@1", "--force").out.count("removed ") == 2
    assert names(added) == {}
    assert "no model is called" in added("rm", "tensor/risk@1").err


def test_verify(added, clean):
    result = added("verify")
    assert result.code == 0
    assert result.out.splitlines() == ["tensor/risk@1: verified", "tensor/risk@2: verified"]
    with (clean / "cache/models/tensor/risk/2/risk.onnx").open("ab") as file:
        file.write(b"x")
    result = added("verify")
    assert result.code == 2
    assert "tensor/risk@1: verified" in result.out
    assert "expected" in result.out
    assert "pull again" in result.err
    (row,) = added("verify", "tensor/risk@2", "--json").json
    assert row["name"] == "tensor/risk@2"
    assert "sha256" in row["error"]


def test_without_a_project_models_are_added_under_the_home(run, clean):
    affine_model(clean / "risk.onnx")
    places = ("--models-cache", "cache", "--home", "home")
    add = ("models", "add", "risk.onnx", "--task", "tensor", "--name", "risk")
    assert run(*add, *places).code == 0
    assert (clean / "home/models/tensor/risk/1/manifest.toml").is_file()
    listed = [row["name"] for row in run("models", "list", *places, "--json").json]
    assert "tensor/risk@1" in listed
    assert "embed/multilingual-e5-small@1" in listed
    task = run("models", "list", "--task", "tensor", *places, "--json").json
    assert [row["name"] for row in task] == ["tensor/risk@1"]
    assert run("models", "promote", "embed/all-minilm-l6-v2@1", "--unpulled", *places).code == 0
    assert (clean / "home/models/embed/all-minilm-l6-v2/aliases.json").is_file()
