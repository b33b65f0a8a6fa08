"""One wrong manifest: it is refused where it is used, and nowhere else."""

from functools import partial

import pytest

from streamapp.core.errors import Refuse
from streamapp.core.project import read_secret
from streamapp.models import Registry
from streamapp.models.repository import Repository
from streamapp.models.serving.live import live


@pytest.fixture
def two(stocked):
    """A sound version 1 of embed/tiny, and version 2 that is nonsense."""
    path = stocked.models_dir / "embed/tiny/2/manifest.toml"
    path.parent.mkdir()
    path.write_text('task = "embed"\nname = 3\n')
    stocked.registry().pull("embed/tiny@1")
    return stocked, path


def test_the_others_are_there_and_it_is_named(two):
    shelf, path = two
    registry = shelf.registry()
    assert [each.full_name for each in registry.list()] == ["embed/tiny@1"]
    assert registry.embedder().dim == 8  # the default is version 1
    (broken,) = registry.catalogue.broken.values()
    assert (broken.name, broken.file) == ("embed/tiny@2", str(path))
    assert str(path) in str(broken)


def test_it_is_refused_where_it_is_used(two):
    shelf, path = two
    registry = shelf.registry()
    (shelf.models_dir / "embed/tiny/aliases.json").write_text('{"champion": {"version": 2}}')
    again = shelf.registry()
    uses = [
        lambda: registry.manifest("embed/tiny@2"),
        lambda: registry.pull("embed/tiny@2"),
        lambda: registry.manifest("embed/tiny"),  # the newest: not the one before instead of it
        lambda: registry.manifest("t"),
        lambda: again.manifest("embed/tiny@champion"),
    ]
    for use in uses:
        with pytest.raises(Refuse, match=str(path)):
            use()


def test_a_process_that_starts_says_so(two, caplog):
    shelf, path = two
    models = live(shelf.registry())
    assert models.embedder("embed/tiny@1").dim == 8
    assert str(path) in caplog.text


def test_a_broken_one_is_not_replaced_by_another_folders(two, tmp_path):
    shelf, path = two
    installed = tmp_path / "installed/embed/tiny/2/manifest.toml"
    installed.parent.mkdir(parents=True)
    sound = shelf.manifest_path.read_text().replace("version = 1", "version = 2")
    installed.write_text(sound)
    registry = Registry([shelf.models_dir, tmp_path / "installed"], shelf.cache)
    with pytest.raises(Refuse, match=str(path)):
        registry.manifest("embed/tiny@2")
    path.write_text(sound)
    installed.write_text("nonsense")
    assert not Registry([shelf.models_dir, tmp_path / "installed"], shelf.cache).catalogue.broken


@pytest.mark.parametrize("place", ["embed/tiny/02", "embed/tiny/two", "magic/x/1"])
def test_what_lies_in_no_place_for_a_manifest_is_named(stocked, place):
    path = stocked.models_dir / place / "manifest.toml"
    path.parent.mkdir(parents=True)
    path.write_text(stocked.manifest_path.read_text().replace("version = 1", "version = 2"))
    registry = stocked.registry()
    assert registry.manifest("embed/tiny").version == 1
    (broken,) = registry.catalogue.broken.values()
    assert broken.file == str(path)


def test_it_can_be_removed(two):
    shelf, path = two
    repository = Repository(shelf.registry(), shelf.models_dir)
    with pytest.raises(Refuse, match="in use: short name t"):  # its newest version
        repository.remove("embed/tiny@2")
    assert repository.remove("embed/tiny@2", force=True) == [path.parent]
    again = shelf.registry()
    assert not again.catalogue.broken
    assert again.manifest("t").version == 1
    assert (shelf.models_dir / "embed/tiny/removed.json").read_text().split() == ["[", "2", "]"]
    with pytest.raises(Refuse) as caught:
        Repository(again, shelf.models_dir).remove("embed/tiny@2")
    assert caught.value.code == "models.unknown"


@pytest.mark.parametrize("place", ["embed/tiny/two", "magic/x/1", "embed/other/3"])
def test_one_that_lies_anywhere_can_be_removed(stocked, place):
    path = stocked.models_dir / place / "manifest.toml"
    path.parent.mkdir(parents=True)
    path.write_text("nonsense")
    name = "@".join(place.rsplit("/", 1))
    assert Repository(stocked.registry(), stocked.models_dir).remove(name) == [path.parent]
    assert not path.parent.exists()
    assert not stocked.registry().catalogue.broken


@pytest.mark.parametrize(("format_", "task"), [("openai", "embed"), ("v2", "tensor")])
def test_an_address_with_a_user_is_refused_wherever_it_is_written(tmp_path, format_, task):
    path = tmp_path / f"models/{task}/far/1/manifest.toml"
    path.parent.mkdir(parents=True)
    more = "dim = 2\nbatch_invariant = true\n" if task == "embed" else ""
    path.write_text(
        f'task = "{task}"\nname = "far"\nversion = 1\nabout = "x"\nlicence = "x"\n{more}'
        f'format = "{format_}"\n[remote]\nurl = "env:FAR_URL"\n'
    )

    def registry(**environ):
        secret = partial(read_secret, folder=tmp_path, environ=environ)
        return Registry(tmp_path / "models", tmp_path / "cache", secret=secret)

    (broken,) = registry(FAR_URL="HTTPS://ann:s3cret@127.0.0.1:9/v1").catalogue.broken.values()
    assert broken.name == f"{task}/far@1"
    assert "env:FAR_URL names a user" in broken.error.message
    assert not {"ann", "s3cret"} & set(str(broken).replace("@", ":").replace("/", ":").split(":"))
    for fine in ({"FAR_URL": "http://127.0.0.1:9/v1@2"}, {}):  # what is not set is said at opening
        assert not registry(**fine).catalogue.broken
