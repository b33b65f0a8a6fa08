"""Declarations: what is wrong is named with its place and a way out."""

import pytest

from streamapp.core.errors import Refuse


def refusal(call, *arguments):
    with pytest.raises(Refuse) as caught:
        call(*arguments)
    assert caught.value.fix
    return caught.value


def test_broken_toml_is_named_by_file_line_and_column(stocked):
    text = stocked.manifest_path.read_text()
    stocked.manifest_path.write_text(text.replace("version = 1", "version = = 1"))
    error = refusal(stocked.registry().manifest)
    assert f"{stocked.manifest_path}:3:" in error.message


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("dim = 8", 'dim = "8"', "dim"),
        ("dim = 8", "dim = 0", "dim"),
        ("dim = 8", "", "dim"),
        ("dim = 8", "dim = 8\ndimm = 8", "dimm"),
        ('sha256 = "', 'sha256 = "0', "sha256"),
        ('name = "model.onnx"', 'name = "../model.onnx"', "name"),
        ('model = "model.onnx"', 'model = "other.onnx"', "other.onnx"),
        ("version = 1", "version = 2", "lies in embed/tiny/1"),
        ("dim = 8", 'dim = 8\nformat = "spacy"', "format 'spacy' cannot serve embed"),
        ('name = "tokenizer.json"', 'name = "model.onnx"', "twice"),
    ],
)
def test_a_wrong_key_is_named(stocked, old, new, says):
    text = stocked.manifest_path.read_text()
    assert old in text
    stocked.manifest_path.write_text(text.replace(old, new))
    error = refusal(stocked.registry().manifest)
    assert str(stocked.manifest_path) in error.message
    assert says in error.message


def test_names_aliases_and_the_default_find_the_same_manifest(stocked):
    registry = stocked.registry()
    names = [None, "t", "embed/tiny", "embed/tiny@1"]
    assert {registry.manifest(name).full_name for name in names} == {"embed/tiny@1"}
    assert [manifest.name for manifest in registry.list()] == ["tiny"]
    assert registry.embedding_dim() == 8


def test_without_version_the_newest_is_taken(stocked):
    second = stocked.models_dir / "embed/tiny/12/manifest.toml"
    second.parent.mkdir()
    second.write_text(stocked.manifest_path.read_text().replace("version = 1", "version = 12"))
    assert stocked.registry().manifest("embed/tiny").version == 12


def test_an_unknown_name_suggests_the_nearest(stocked):
    assert "embed/tiny" in refusal(stocked.registry().manifest, "embed/tyni").fix


def test_a_short_name_of_nothing_is_named_with_what_it_is_short_for(stocked):
    (stocked.models_dir / "routes.toml").write_text('[aliases]\nloop = "loop"\n')
    with pytest.raises(Refuse, match="'loop' is short for 'loop'") as caught:
        stocked.registry().manifest("loop")
    assert "routes.toml" in caught.value.fix


def test_no_default_and_no_folder_are_refused(stocked):
    (stocked.models_dir / "routes.toml").unlink()
    assert refusal(stocked.registry().manifest).code == "models.route"
    stocked.models_dir.rename(stocked.models_dir.with_name("elsewhere"))
    assert refusal(stocked.registry).code == "models.folder"


def test_the_first_folder_wins(stocked, tmp_path):
    from streamapp.models import Registry

    own = tmp_path / "own/embed/tiny/1/manifest.toml"
    own.parent.mkdir(parents=True)
    own.write_text(stocked.manifest_path.read_text().replace("a table", "my table"))
    registry = Registry([tmp_path / "own", stocked.models_dir], stocked.cache)
    assert registry.manifest().about == "my table"


def test_the_shipped_manifests_are_sound():
    from pathlib import Path

    from streamapp.models import Registry

    registry = Registry(Path(__file__).parents[2] / "models", Path("/nowhere"))
    assert registry.manifest().full_name == "embed/multilingual-e5-small@1"
    assert registry.manifest("minilm").full_name == "embed/all-minilm-l6-v2@1"
    assert not registry.status().pulled


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "embed/tiny/1/manifest.toml",
            'name = "tiny"',
            'name = "Tiny"',
            "'name' must be lower-case",
        ),
        ("embed/tiny/1/manifest.toml", "version = 1", "version = 0", "'version' must be a whole n"),
        ("embed/tiny/1/manifest.toml", "dim = 8", 'dim = "8"', "a whole number, not a text"),
        ("embed/tiny/1/manifest.toml", "dim = 8", "", "'dim' is missing"),
        ("embed/tiny/1/manifest.toml", "dim = 8", "dim = 8\nx = 1", "'x' is not one of its keys"),
        ("embed/tiny/1/manifest.toml", '"mean"', '"sum"', "'pooling' cannot be 'sum'"),
        ("embed/tiny/1/manifest.toml", 'query = "q "', "query = 1", "'prefixes.*' must be a text"),
        ("embed/tiny/1/manifest.toml", "dim = 8", 'dim = 8\nfunction = "f"', "module:name"),
    ],
)
def test_what_is_wrong_is_told_in_words(stocked, file, old, new, says):
    path = stocked.models_dir / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    error = refusal(lambda: stocked.registry().manifest("embed/tiny@1"))
    assert says in error.message
    assert not {"regex", "Expected", "$.", "Object"} & set(error.message.replace(",", " ").split())
