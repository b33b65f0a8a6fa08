"""One wrong manifest: it is refused where it is used, and nowhere else."""

import pytest

from streamapp.core.errors import Refuse
from streamapp.models import Registry
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
