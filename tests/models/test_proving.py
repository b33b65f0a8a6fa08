"""Models that are no files of ours: a pull and ``verify`` open them, or say why that is no proof."""

import msgspec
import pytest
from model_servers import ModelServer

from streamapp.core.errors import Refuse
from streamapp.models import Registry
from streamapp.models.manifest import (
    ChatManifest,
    ClassifyManifest,
    EmbedManifest,
    EntitiesManifest,
    HeadManifest,
    RemoteSpec,
    TensorManifest,
)
from streamapp.models.toml import write_toml

SIDES = {"inputs": {"x": "float32[n,3]"}, "outputs": {"y": "float32[n,3]"}}
TEXTS = {"inputs": {"text": "string[n]"}, "outputs": {"y": "float32[n,2]"}}


def registry_of(folder, kind, **said):
    given = {"name": "one", "version": 1, "about": "x", "licence": "MIT"}
    manifest = kind(**given | said)
    place = folder / "models" / manifest.task / "one/1/manifest.toml"
    place.parent.mkdir(parents=True)
    place.write_text(write_toml({"task": manifest.task, **msgspec.to_builtins(manifest)}))
    return Registry(folder / "models", folder / "cache", threads=1), manifest.full_name


EMBEDS = {"format": "function", "function": "tiny_models:lengths", "dim": 2,
          "batch_invariant": True}  # fmt: skip
LABELS = {"format": "function", "function": "tiny_models:lengths", "labels": ["a", "b"]}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (TensorManifest, {"format": "function", "function": "tiny_models:affine", **SIDES,
                          "example": {"x": [[1.0, 2.0, 3.0]]}}),
        (EmbedManifest, EMBEDS | TEXTS),
        (ClassifyManifest, LABELS | TEXTS | {"output": "y"}),
    ],
)  # fmt: skip
def test_a_function_that_does_what_it_says(tmp_path, kind, said):
    registry, name = registry_of(tmp_path, kind, **said)
    assert registry.pull(name).pulled
    assert registry.verify(name) == ""


@pytest.mark.parametrize(
    ("kind", "said", "why"),
    [
        (TensorManifest, {"format": "function", "function": "tiny_models:no", **SIDES}, "no"),
        (TensorManifest, {"format": "function", "function": "tiny_models:affine", **SIDES,
                          "example": {"x": [[1.0, 2.0]]}}, "its own example"),
        (EmbedManifest, EMBEDS | SIDES, "takes float32"),
        (ClassifyManifest, LABELS | TEXTS | {"labels": ["a", "b", "c"], "output": "y"}, "3"),
        (ClassifyManifest, LABELS | SIDES | {"output": "y"}, "x"),
        (HeadManifest, LABELS | TEXTS | {"output": "z", "embedder": "embed/x", "dim": 3}, "z"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_serve_its_task_is_refused(tmp_path, kind, said, why):
    registry, name = registry_of(tmp_path, kind, **said)
    for verb in (registry.pull, registry.verify):
        with pytest.raises(Refuse) as caught:
            verb(name)
        assert why in caught.value.message


def test_what_cannot_be_opened_here_is_not_proven(tmp_path):
    said = {"format": "function", "function": "tiny_models:affine", "requires": ["no-such>=2"]}
    registry, name = registry_of(tmp_path / "a", TensorManifest, **said | SIDES)
    assert registry.pull(name).pulled
    assert "needs no-such>=2" in registry.verify(name)
    remote = RemoteSpec(url="http://127.0.0.1:9/v1", attempts=1)
    registry, name = registry_of(tmp_path / "b", TensorManifest, format="v2", remote=remote)
    assert registry.pull(name).pulled  # which asks no server
    assert "127.0.0.1:9" in registry.verify(name)
    registry, name = registry_of(tmp_path / "c", ChatManifest, remote=remote)
    assert "ask try" in registry.verify(name)


def test_a_server_is_asked_by_verify(tmp_path):
    with ModelServer() as server:
        remote = RemoteSpec(url=server.url, attempts=1, model="affine")
        one, name = registry_of(
            tmp_path / "a", TensorManifest, format="v2", remote=remote, inputs=SIDES["inputs"]
        )
        one.pull(name)
        assert not server.requests
        assert one.verify(name) == ""
        other, name = registry_of(
            tmp_path / "b", TensorManifest, format="v2", remote=remote,
            inputs={"x": "float32[n,4]"},
        )  # fmt: skip
        with pytest.raises(Refuse, match="x"):
            other.verify(name)
        gliner, name = registry_of(
            tmp_path / "c", EntitiesManifest, format="spacy", model="m.whl",
            files=[{"name": "m.whl", "sha256": "0" * 64, "bytes": 1, "sources": ["file:/x"]}],
        )  # fmt: skip
        with pytest.raises(Refuse, match="is not in"):
            gliner.verify(name)
