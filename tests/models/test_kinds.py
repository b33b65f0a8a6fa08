"""Manifests of every kind: what belongs to which, what is refused, and what is written again."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.adding import manifest_toml
from streamapp.models.declaration import FORMATS, read_manifest
from streamapp.models.manifest import TASKS, HeadManifest
from streamapp.models.session import parse_tensor

FILE = '[[files]]\nname = "{}"\nsha256 = "' + "0" * 64 + '"\nbytes = 1\nsources = ["file:/x"]\n'
MODEL, TOKENIZER = FILE.format("model.onnx"), FILE.format("tokenizer.json")
KINDS = {
    "embed": 'model = "model.onnx"\ntokenizer = "tokenizer.json"\ndim = 4\nbatch_invariant = true\n'
    + MODEL + TOKENIZER,
    "entities": 'model = "model.onnx"\ntokenizer = "tokenizer.json"\nmode = "token"\n'
    + MODEL + TOKENIZER,
    "classify": 'model = "model.onnx"\ntokenizer = "tokenizer.json"\nlabels = ["a", "b"]\n'
    + MODEL + TOKENIZER,
    "head": 'model = "model.onnx"\nembedder = "embed/x"\ndim = 4\nlabels = ["a", "b"]\n' + MODEL,
    "tensor": 'model = "model.onnx"\n' + MODEL + '[inputs]\nx = "float32[n,3]"\n',
    "chat": '[remote]\nurl = "http://127.0.0.1:9/v1"\ntoken = "env:KEY"\n',
}  # fmt: skip


def write(folder, task, text, name="x", version=1, place=None):
    path = folder / (place or f"{task}/{name}/{version}") / "manifest.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'task = "{task}"\nname = "{name}"\nversion = {version}\nabout = "x"\nlicence = "MIT"\n'
        + text
    )
    return path


@pytest.fixture
def all_kinds(tmp_path):
    folder = tmp_path / "models"
    for task, text in KINDS.items():
        write(folder, task, text)
    return Registry(folder, tmp_path / "cache")


def refusal(call, *arguments, **options):
    with pytest.raises(Refuse) as caught:
        call(*arguments, **options)
    assert caught.value.fix
    return caught.value


def test_every_task_has_its_kind(all_kinds):
    assert set(KINDS) == set(TASKS)
    found = {manifest.task: manifest for manifest in all_kinds.list()}
    assert set(found) == set(TASKS)
    assert [type(found[task]).__name__.removesuffix("Manifest").lower() for task in TASKS] == [
        *TASKS
    ]
    assert all(found[task].full_name == f"{task}/x@1" for task in TASKS)


def test_a_manifest_that_is_written_is_the_one_that_was_read(all_kinds, tmp_path):
    for manifest in all_kinds.list():
        path = tmp_path / "again.toml"
        path.write_text(manifest_toml(manifest))
        assert read_manifest(path) == manifest


@pytest.mark.parametrize("task", TASKS)
def test_a_model_for_another_task_is_not_taken(all_kinds, task):
    for other in TASKS:
        if other == task:
            assert all_kinds.manifest(f"{other}/x", task).task == task
        else:
            error = refusal(all_kinds.manifest, f"{other}/x", task)
            assert error.code == "models.task"
            assert f"for {other}, not for {task}" in error.message


def test_a_kind_and_the_default_of_a_task(all_kinds, tmp_path):
    assert all_kinds.manifest_of(HeadManifest, "head/x").labels == ["a", "b"]
    assert "no default for head" in refusal(all_kinds.manifest_of, HeadManifest).message
    (tmp_path / "models/routes.toml").write_text('[defaults]\nhead = "head/x"\n')
    again = Registry(tmp_path / "models", tmp_path / "cache")
    assert again.manifest_of(HeadManifest).dim == 4
    assert again.status("head/x").default
    assert refusal(all_kinds.embedder, "head/x").code == "models.task"


@pytest.mark.parametrize(
    ("task", "old", "new", "says"),
    [
        ("tensor", 'task = "tensor"', 'task = "magic"', "magic"),
        ("tensor", 'name = "x"', 'name = "X"', "name"),
        ("tensor", 'licence = "MIT"', "", "licence"),
        ("tensor", 'model = "model.onnx"', "", "names no model"),
        ("tensor", 'model = "model.onnx"', 'model = "model.onnx"\ndim = 3', "dim"),
        ("embed", "dim = 4", "", "dim"),
        ("embed", 'tokenizer = "tokenizer.json"', "", "names no tokenizer"),
        ("entities", 'mode = "token"', 'mode = "words"', "words"),
        ("classify", 'labels = ["a", "b"]', "labels = []", "labels"),
        ("head", 'embedder = "embed/x"', "", "embedder"),
        ("chat", "http://127.0.0.1:9/v1", "127.0.0.1:9", "url"),
        ("chat", "[remote]", "[elsewhere]", "elsewhere"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path, task, old, new, says):
    path = write(tmp_path / "models", task, KINDS[task])
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    error = refusal(Registry(tmp_path / "models", tmp_path / "cache").manifest, f"{task}/x")
    assert str(path) in error.message
    assert says in error.message


def test_a_manifest_that_lies_elsewhere_is_named(tmp_path):
    write(tmp_path / "models", "tensor", KINDS["tensor"], place="head/x/1")
    registry = Registry(tmp_path / "models", tmp_path)
    assert "lies in head/x/1" in refusal(registry.manifest, "head/x").message
    write(tmp_path / "other", "tensor", KINDS["tensor"], place="magic/x/1")
    registry = Registry(tmp_path / "other", tmp_path)
    assert "'magic' is no task" in refusal(registry.manifest, "magic/x").message


@pytest.mark.parametrize(
    ("task", "format_"),
    [
        ("tensor", "spacy"), ("tensor", "openai"), ("tensor", "numpy"), ("classify", "openai"),
        ("embed", "spacy"), ("entities", "openai"), ("head", "spacy"), ("chat", "v2"),
    ],
)  # fmt: skip
def test_a_format_that_cannot_serve_the_task_is_refused(tmp_path, task, format_):
    write(tmp_path / "models", task, f'format = "{format_}"\n' + KINDS[task])
    registry = Registry(tmp_path / "models", tmp_path / "cache")
    for verb in (registry.manifest, registry.pull, registry.status):
        assert format_ in refusal(verb, f"{task}/x").message


def test_every_format_but_those_serves(tmp_path):
    remote = '[remote]\nurl = "http://127.0.0.1:9/v1"\n'
    for task, formats in FORMATS.items():
        for format_ in formats:
            text = f'format = "{format_}"\nfunction = "m:f"\n' + KINDS[task]
            text += "" if task == "chat" else remote
            write(tmp_path, task, text, name=format_)
    assert not Registry(tmp_path, tmp_path / "cache").catalogue.broken


def test_gliner_by_a_function_needs_its_tokenizer(tmp_path):
    write(tmp_path, "entities", 'format = "function"\nfunction = "m:f"\n')
    error = refusal(Registry(tmp_path, tmp_path / "cache").manifest, "entities/x")
    assert "names no tokenizer" in error.message


def test_a_package_that_is_missing_is_named_before_anything_is_opened(tmp_path):
    text = 'format = "function"\nfunction = "tiny_models:affine"\nrequires = ["no-such-thing>=2"]\n'
    write(tmp_path / "models", "tensor", text)
    error = refusal(Registry(tmp_path / "models", tmp_path).session, "tensor/x")
    assert error.code == "models.requires"
    assert "no-such-thing>=2" in error.fix


@pytest.mark.parametrize(
    "declared", ["", "float32", "float32[", "magic[3]", "float32[3][4]", "[3]"]
)
def test_what_is_no_tensor_is_refused(declared):
    assert "x = " in refusal(parse_tensor, "x", declared).message


def test_tensors():
    assert parse_tensor("x", "f32[batch, 384]").shape == (-1, 384)
    assert str(parse_tensor("x", "string[-1,?,2]")) == "string[?,?,2]"
    assert parse_tensor("x", "int64[]").shape == ()
