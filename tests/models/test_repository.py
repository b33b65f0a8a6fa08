"""The repository: what is added works, what is wrong is named, and nothing is half installed."""

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from file_servers import FakeMlflow, FileServer
from tiny_models import affine, affine_model

from streamapp.core.errors import Refuse, Retry
from streamapp.models import Registry
from streamapp.models import download as downloads
from streamapp.models.adding import Offer, add
from streamapp.models.manifest import Lineage
from streamapp.models.repository import Repository
from streamapp.models.source import Places

WRONG = "models.sha256", "models.fetch", "models.onnx", "models.signature", "models.example"


class House:
    """A project's models, its cache, and a graph to add."""

    def __init__(self, folder):
        self.own, self.cache = folder / "models", folder / "cache"
        self.own.mkdir()
        self.model = affine_model(folder / "risk.onnx")

    def registry(self, **options):
        return Registry(self.own, self.cache, threads=1, **options)

    def offer(self, **changes):
        given = {"task": "tensor", "name": "risk", "model": self.model, "licence": "MIT"}
        return Offer(**given | changes)

    def add(self, **changes):
        return add(self.registry(), self.own, self.offer(**changes))

    def repository(self):
        return Repository(self.registry(), self.own)

    def files(self):
        """All files but locks, below models and cache."""
        found = [*self.own.rglob("*"), *self.cache.rglob("*")]
        return sorted(path.name for path in found if path.is_file() and path.name != ".lock")

    def declare(self, *, sha256=None, size=None, extra="", sources=None):
        """A manifest by hand."""
        content = self.model.read_bytes()
        path = self.own / "tensor/risk/1/manifest.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            'task = "tensor"\nname = "risk"\nversion = 1\nabout = "x"\nlicence = "MIT"\n'
            f'model = "risk.onnx"\n{extra}\n[[files]]\nname = "risk.onnx"\n'
            f'sha256 = "{sha256 or hashlib.sha256(content).hexdigest()}"\n'
            f"bytes = {size or len(content)}\n"
            f"sources = {sources or [f'file:{self.model}']}\n".replace("'", '"')
        )


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_a_graph_is_added_with_all_that_it_tells(house):
    lineage = Lineage(parent="tensor/risk@0", run="run-7", data="claims of May")
    manifest = house.add(lineage=lineage, about="risk of a claim")
    assert manifest.full_name == "tensor/risk@1"
    kept = house.registry().manifest("tensor/risk")
    assert kept == manifest
    assert kept.inputs == {"x": "float32[?,3]"}
    assert kept.outputs == {"y": "float32[?,3]", "total": "float32[?]"}
    assert kept.example == {"x": [[0.0, 0.0, 0.0]]}
    assert kept.files[0].sha256 == hashlib.sha256(house.model.read_bytes()).hexdigest()
    assert (kept.lineage.run, kept.licence) == ("run-7", "MIT")
    house.model.unlink()  # what was pulled needs no source
    x = np.ones((2, 3), np.float32)
    found = house.registry().session("tensor/risk").run({"x": x})
    np.testing.assert_allclose(found["y"], affine(x)["y"])


def test_a_session_is_opened_once_and_shared(house):
    house.add()
    registry = house.registry()
    assert registry.session("tensor/risk") is registry.session("tensor/risk@1")
    registry.close()


def test_versions_follow_each_other_and_do_not_change(house):
    assert [house.add().version for _ in range(2)] == [1, 2]
    with pytest.raises(Refuse, match="a version does not change") as caught:
        house.add(version=1)
    assert "becomes 3" in caught.value.fix
    assert house.registry().manifest("tensor/risk").version == 2


def test_an_encoder_is_added_and_what_can_be_measured_is(house, stocked):
    model, tokenizer = stocked.origin / "model.onnx", stocked.origin / "tokenizer.json"
    manifest = house.add(task="embed", name="mine", model=model, tokenizer=tokenizer)
    assert (manifest.dim, manifest.pooling, manifest.batch_invariant) == (8, "mean", True)
    assert house.registry().embedder("embed/mine").dim == 8
    stocked.stock(leaky=True)
    manifest = house.add(task="embed", name="mine", model=model, tokenizer=tokenizer)
    assert (manifest.version, manifest.batch_invariant) == (2, False)
    with pytest.raises(Refuse, match="depends on its batch"):
        house.add(
            task="embed", name="mine", model=model, tokenizer=tokenizer,
            values={"batch_invariant": True},
        )  # fmt: skip
    assert house.registry().manifest("embed/mine").version == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "nothing"}, "give --task one of embed,"),
        ({"task": "classify"}, "--set labels="),
        ({"task": "head"}, "--set embedder="),
        ({"task": "embed"}, "give it with --tokenizer tokenizer.json"),
        ({"name": "Not A Name"}, "give it with --name"),
        ({"version": -1}, "give it with --version"),
        ({"values": {"colour": "red"}}, "colour"),
        ({"values": {"inputs": {"x": "float32[n,4]"}}}, "float32[?,3]"),
        ({"values": {"outputs": {"z": "float32[n]"}}}, "no output 'z'"),
        ({"values": {"example": {"x": [[1, 2]]}}}, "its own example"),
    ],
)
def test_what_would_be_a_wrong_manifest_is_not_added(house, changes, says):
    with pytest.raises(Refuse) as caught:
        house.add(**changes)
    assert says in str(caught.value)
    assert caught.value.fix
    assert house.files() == []
    assert house.registry().list() == []


def test_what_is_no_graph_is_not_added(house):
    house.model.write_bytes(house.model.read_bytes()[:-20])
    with pytest.raises(Refuse) as caught:
        house.add()
    assert caught.value.code == "models.onnx"
    house.model.unlink()
    with pytest.raises(Refuse, match="no file"):
        house.add()
    assert house.files() == []


def not_installed(house, name="tensor/risk", error=Refuse):
    """The error of a pull that fails; afterwards nothing of the model can be used."""
    with pytest.raises(error) as caught:
        house.registry().pull(name)
    folder = house.registry().folder(name)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    assert not house.registry().status(name).pulled
    with pytest.raises(Refuse, match="is not in") as opened:
        house.registry().session(name)
    assert "models pull" in opened.value.fix
    assert caught.value.code in WRONG
    assert caught.value.fix
    return caught.value.message


def test_a_wrong_sha256(house):
    house.declare(sha256="0" * 64)
    assert "expected 0000" in not_installed(house)


def test_a_truncated_file(house):
    house.declare()
    content = house.model.read_bytes()
    house.model.write_bytes(content[:-20])
    says = f"it has {len(content) - 20} bytes, the manifest declares {len(content)}"
    assert says in not_installed(house, error=Retry)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_source_that_is_no_file_is_not_waited_for(house, tmp_path, kind):
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    house.declare(sources=[f"file:{path}"])
    assert "it is no file" in not_installed(house, error=Retry)


def test_what_a_source_gave_in_a_wrong_size_is_not_kept(house):
    house.declare(size=house.model.stat().st_size - 1)
    assert "larger than" in not_installed(house, error=Retry)
    stage = house.registry().folder("tensor/risk") / ".pull"
    assert list(stage.iterdir()) == []


def test_a_truncated_model_whose_sha256_is_right(house):
    house.model.write_bytes(house.model.read_bytes()[:-20])
    house.declare()
    assert "risk.onnx" in not_installed(house)


def test_inputs_that_are_not_those_of_the_manifest(house):
    for inputs in ('x = "float32[n,4]"', 'x = "int64[n,3]"', 'y = "float32[n,3]"'):
        house.declare(extra=f"[inputs]\n{inputs}")
        assert "manifest" in not_installed(house) or "has no input" in not_installed(house)


def test_an_example_of_another_input(house):
    house.declare(extra="[example]\nz = [[1, 2, 3]]")
    assert "z" in not_installed(house)


def test_what_pulls_after_a_refusal_needs_no_source_again(house):
    house.declare(extra='[inputs]\nx = "float32[n,4]"')
    not_installed(house)
    house.declare(sources=["file:/nowhere/risk.onnx"])
    assert house.registry().pull("tensor/risk").pulled


def test_a_manifest_that_changed_after_the_pull_is_held_against_the_model(house):
    house.declare()
    house.registry().pull("tensor/risk")
    house.declare(extra='[inputs]\nx = "float32[n,4]"')
    with pytest.raises(Refuse, match=r"has the input x = float32\[\?,3\]"):
        house.registry().session("tensor/risk")


def test_a_file_that_someone_put_there_is_taken(house):
    house.declare(sources=["https://127.0.0.1:9/risk.onnx"])
    folder = house.registry().folder("tensor/risk")
    folder.mkdir(parents=True)
    shutil.copy(house.model, folder / "risk.onnx")
    assert house.registry().pull("tensor/risk").pulled


def test_a_pull_over_the_web_is_resumed_by_the_next_one(house, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 0)
    content = house.model.read_bytes()
    with FileServer({"/risk.onnx": content}) as site:
        site.cuts = [100]
        house.declare(sources=[f"{site.url}/risk.onnx"])
        assert "100 of" in not_installed(house, error=Retry)
        assert house.registry().pull("tensor/risk").pulled
        assert site.asked("Range") == [None, "bytes=100-"]
        house.registry().pull("tensor/risk")
        assert len(site.requests) == 2  # offline once pulled


PULL = """
from pathlib import Path
from streamapp.models import Registry
Registry(Path({own!r}), Path({cache!r}), threads=1).pull("tensor/risk")
"""


def test_a_pull_that_is_killed_leaves_nothing_but_what_the_next_one_goes_on_with(house):
    content = house.model.read_bytes()
    with FileServer({"/risk.onnx": content}) as site:
        site.cuts, site.held = [100], threading.Event()
        house.declare(sources=[f"{site.url}/risk.onnx"])
        code = PULL.format(own=str(house.own), cache=str(house.cache))
        pulling = subprocess.Popen([sys.executable, "-c", code])
        part = house.registry().folder("tensor/risk") / ".pull/risk.onnx.part"
        eventually(lambda: part.is_file() and part.stat().st_size == 100, pulling)
        pulling.kill()
        pulling.wait()
        site.held.set()
        assert not house.registry().status("tensor/risk").pulled
        with pytest.raises(Refuse, match="is not in"):
            house.registry().session("tensor/risk")
        assert house.registry().pull("tensor/risk").pulled
        assert site.asked("Range")[-1] == "bytes=100-"


def eventually(holds, process):
    """Wait until a condition holds; not longer than the process lives."""
    while not holds():
        assert process.poll() is None
        time.sleep(0.01)


def test_a_model_of_an_mlflow_registry(house):
    with FakeMlflow() as mlflow:
        mlflow.publish("risk", 4, "model.onnx", house.model.read_bytes())
        house.declare(sources=["mlflow:risk/4:model.onnx"])
        places = Places(mlflow_url=mlflow.url)
        assert house.registry(places=places).pull("tensor/risk").pulled


def test_what_is_in_use_is_not_removed(house):
    for _ in range(3):
        house.add()
    house.repository().promote("tensor/risk@1", "champion")
    house.repository().promote("tensor/risk@2", "champion")
    (house.own / "routes.toml").write_text('[aliases]\nrisk = "tensor/risk@3"\n')
    for version, use in ((2, "alias champion"), (3, "short name risk")):
        with pytest.raises(Refuse, match=use):
            house.repository().remove(f"tensor/risk@{version}")
    assert house.registry().status("tensor/risk@2").pulled


def test_what_is_removed_is_gone_with_its_manifest(house):
    for _ in range(2):
        house.add()
    house.repository().promote("tensor/risk@1", "champion")
    house.repository().promote("tensor/risk@2", "champion")
    removed = house.repository().remove("tensor/risk@1")
    assert len(removed) == 2
    assert not any(path.exists() for path in removed)
    with pytest.raises(Refuse, match="no model is called"):
        house.registry().manifest("tensor/risk@1")
    with pytest.raises(Refuse, match="never was another"):  # there is no way back to it
        house.repository().rollback("tensor/risk", "champion")
    house.repository().remove("tensor/risk@2", force=True)
    assert house.registry().list() == []
    assert not [name for name in house.files() if name.endswith((".onnx", ".toml"))]


def test_the_number_of_a_removed_version_is_given_to_no_other(house):
    for _ in range(2):
        house.add()
    house.repository().remove("tensor/risk@2")
    assert house.add().version == 3
    for version in (3, 1):
        house.repository().remove(f"tensor/risk@{version}")
    assert house.add().version == 4
    with pytest.raises(Refuse, match="tensor/risk@2 was there, and a version") as caught:
        house.add(version=2)
    assert "becomes 5" in caught.value.fix
    (house.own / "tensor/risk/removed.json").write_text("nonsense")
    with pytest.raises(Refuse, match="removed.json"):
        house.add()


def test_the_number_of_a_broken_version_is_not_given_again(house):
    house.add()
    (house.own / "tensor/risk/1/manifest.toml").write_text("nonsense")
    assert house.add().version == 2


def test_an_installed_manifest_stays_when_its_files_go(stocked, tmp_path):
    registry, own = stocked.registry(), tmp_path / "own"
    registry.pull()
    removed = Repository(registry, own).remove("embed/tiny@1", force=True)
    assert removed == [stocked.folder]
    assert not stocked.registry().status("embed/tiny@1").pulled
    assert Repository(registry, own).remove("embed/tiny@1", force=True) == []
