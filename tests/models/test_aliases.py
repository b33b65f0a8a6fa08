"""Aliases: one version at a time, moved at once, and back again."""

import fcntl
import json
import threading

import pytest

from streamapp.core.errors import Refuse
from streamapp.models import aliases
from streamapp.models.repository import Repository


@pytest.fixture
def three(stocked):
    """Versions 1 to 3 of embed/tiny, all pulled."""
    for version in (2, 3):
        path = stocked.models_dir / f"embed/tiny/{version}/manifest.toml"
        path.parent.mkdir()
        text = stocked.manifest_path.read_text()
        path.write_text(text.replace("version = 1", f"version = {version}"))
    registry = stocked.registry()
    for version in (1, 2, 3):
        registry.pull(f"embed/tiny@{version}")
    return stocked


def repository(shelf):
    return Repository(shelf.registry(), shelf.models_dir)


def find(shelf, name):
    return shelf.registry().manifest(name).full_name


def test_an_alias_is_promoted_and_rolled_back(three):
    file = three.models_dir / "embed/tiny/aliases.json"
    for version, before in ((1, None), (3, 1), (3, 3), (2, 3)):
        promoted = repository(three).promote(f"embed/tiny@{version}", "champion")
        assert (promoted.manifest.version, promoted.before) == (version, before)
        assert find(three, "embed/tiny@champion") == f"embed/tiny@{version}"
    assert json.loads(file.read_text()) == {"champion": {"version": 2, "before": [1, 3]}}
    for version in (3, 1):
        assert repository(three).rollback("embed/tiny", "champion").manifest.version == version
        assert find(three, "embed/tiny@champion") == f"embed/tiny@{version}"
    with pytest.raises(Refuse, match="never was another than @1"):
        repository(three).rollback("embed/tiny", "champion")
    assert find(three, "embed/tiny@champion") == "embed/tiny@1"


def test_aliases_of_a_model_do_not_touch_each_other(three):
    repository(three).promote("embed/tiny@1", "champion")
    repository(three).promote("embed/tiny@2", "challenger")
    assert find(three, "embed/tiny@champion") == "embed/tiny@1"
    assert find(three, "embed/tiny@challenger") == "embed/tiny@2"
    statuses = {version: three.registry().status(f"embed/tiny@{version}") for version in (1, 2, 3)}
    assert {v: s.aliases for v, s in statuses.items()} == {
        1: ("champion",), 2: ("challenger",), 3: (),
    }  # fmt: skip


def test_an_unknown_alias_is_named_with_those_there_are(three):
    with pytest.raises(Refuse) as caught:
        three.registry().manifest("embed/tiny@champion")
    assert caught.value.code == "models.alias"
    assert "it has none" in caught.value.message
    assert "promote embed/tiny@3 --alias champion" in caught.value.fix
    repository(three).promote("embed/tiny@1", "champion")
    with pytest.raises(Refuse, match="no alias 'champoin'; it has champion"):
        three.registry().embedder("embed/tiny@champoin")
    with pytest.raises(Refuse, match="was never promoted"):
        repository(three).rollback("embed/tiny", "challenger")


def test_a_default_and_a_short_name_may_be_an_alias(three):
    (three.models_dir / "routes.toml").write_text(
        '[defaults]\nembed = "embed/tiny@champion"\n[aliases]\nt = "embed/tiny@champion"\n'
    )
    repository(three).promote("embed/tiny@2", "champion")
    assert three.registry().manifest().full_name == "embed/tiny@2"
    assert find(three, "t") == "embed/tiny@2"
    assert three.registry().status("embed/tiny@2").used == ("default of embed", "short name t")


def test_a_version_that_is_not_here_is_promoted_only_on_purpose(three):
    (three.folder / "model.onnx").unlink()
    with pytest.raises(Refuse, match="could not open it") as caught:
        repository(three).promote("embed/tiny@1", "champion")
    assert "models pull embed/tiny@1" in caught.value.fix
    assert not (three.models_dir / "embed/tiny/aliases.json").exists()
    assert repository(three).promote("embed/tiny@1", "champion", unpulled=True).before is None


def test_nor_is_an_alias_rolled_back_to_one(three):
    repository(three).promote("embed/tiny@1", "champion")
    repository(three).promote("embed/tiny@2", "champion")
    (three.folder / "model.onnx").unlink()
    with pytest.raises(Refuse, match="could not open it") as caught:
        repository(three).rollback("embed/tiny", "champion")
    assert "models pull embed/tiny@1" in caught.value.fix
    assert find(three, "embed/tiny@champion") == "embed/tiny@2"
    back = repository(three).rollback("embed/tiny", "champion", unpulled=True)
    assert back.manifest.version == 1


@pytest.mark.parametrize("name", ["embed/tiny@9", "embed/nope@1", "embed/tiny@champion"])
def test_what_does_not_exist_is_not_promoted(three, name):
    with pytest.raises(Refuse):
        repository(three).promote(name, "champion")
    assert not (three.models_dir / "embed/tiny/aliases.json").exists()


@pytest.mark.parametrize("alias", ["", "Champion", "2", "a b", "a" * 33, "../x"])
def test_what_cannot_be_an_alias(three, alias):
    with pytest.raises(Refuse, match="cannot be an alias"):
        repository(three).promote("embed/tiny@1", alias)
    assert not (three.models_dir / "embed/tiny/aliases.json").exists()


def test_a_file_that_says_nonsense_is_named_where_an_alias_is_used(three):
    file = three.models_dir / "embed/tiny/aliases.json"
    file.write_text("{nonsense")
    registry = three.registry()
    assert registry.manifest("embed/tiny").version == 3
    assert registry.catalogue.broken["embed/tiny"].file == str(file)
    uses = [
        lambda: registry.manifest("embed/tiny@champion"),
        lambda: repository(three).promote("embed/tiny@1", "champion"),
        lambda: repository(three).rollback("embed/tiny", "champion"),
        lambda: repository(three).remove("embed/tiny@1", force=True),
    ]
    for use in uses:
        with pytest.raises(Refuse, match=str(file)):
            use()


def test_an_alias_of_nothing_harms_no_other_and_is_promoted_again(three):
    file = three.models_dir / "embed/tiny/aliases.json"
    file.write_text('{"champion": {"version": 7}, "challenger": {"version": 2}}')
    assert find(three, "embed/tiny@challenger") == "embed/tiny@2"
    with pytest.raises(Refuse, match="is version 7, which does not exist"):
        find(three, "embed/tiny@champion")
    repository(three).promote("embed/tiny@1", "champion")
    assert find(three, "embed/tiny@champion") == "embed/tiny@1"
    assert not three.registry().catalogue.broken


def test_refresh_sees_a_promotion_and_nothing_else(three):
    registry = three.registry()
    assert not registry.refresh()
    repository(three).promote("embed/tiny@1", "champion")
    assert registry.refresh()
    assert registry.manifest("embed/tiny@champion").version == 1
    assert not registry.refresh()
    repository(three).promote("embed/tiny@2", "champion")
    assert registry.refresh()
    assert registry.manifest("embed/tiny@champion").version == 2


def test_a_refresh_that_finds_nonsense_leaves_what_was_and_takes_the_rest(three, caplog):
    repository(three).promote("embed/tiny@1", "champion")
    registry = three.registry()
    (three.models_dir / "embed/tiny/aliases.json").write_text("{")
    (three.models_dir / "embed/tiny/3/manifest.toml").write_text("nonsense")
    (three.models_dir / "routes.toml").write_text('[aliases]\nnew = "embed/tiny@2"\n')
    assert registry.refresh()
    assert registry.manifest("embed/tiny@champion").version == 1
    assert registry.manifest("embed/tiny").version == 3
    assert registry.manifest("new").version == 2
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all("stays as it was" in each for each in told)
    (three.models_dir / "embed/tiny/aliases.json").write_text('{"champion": {"version": 9}}')
    assert registry.refresh()
    assert registry.manifest("embed/tiny@champion").version == 1


@pytest.fixture
def just_before(monkeypatch):
    """Has another process do something while the next one waits for the lock."""

    def set_up(others):
        flock = fcntl.flock

        def lock(*arguments):
            monkeypatch.setattr(fcntl, "flock", flock)
            others()
            flock(*arguments)

        monkeypatch.setattr(fcntl, "flock", lock)

    return set_up


def test_what_is_promoted_meanwhile_is_not_removed(three, just_before):
    mine, others = repository(three), repository(three)
    just_before(lambda: others.promote("embed/tiny@2", "champion"))
    with pytest.raises(Refuse, match="embed/tiny@2 is in use: alias champion"):
        mine.remove("embed/tiny@2")
    assert find(three, "embed/tiny@champion") == "embed/tiny@2"


def test_what_is_removed_meanwhile_is_not_promoted(three, just_before):
    mine, others = repository(three), repository(three)
    just_before(lambda: others.remove("embed/tiny@2"))
    with pytest.raises(Refuse, match="no model is called 'embed/tiny@2'"):
        mine.promote("embed/tiny@2", "champion")
    assert not three.registry().catalogue.broken


def test_what_is_removed_meanwhile_is_not_gone_back_to(three, just_before):
    for version in (1, 2, 3):
        repository(three).promote(f"embed/tiny@{version}", "champion")
    mine, others = repository(three), repository(three)
    just_before(lambda: others.remove("embed/tiny@2"))
    back = mine.rollback("embed/tiny", "champion")
    assert (back.manifest.version, back.before) == (1, 3)


def test_many_that_promote_at_once_lose_nothing(tmp_path):
    folder = tmp_path / "embed/tiny"

    def promote(version):
        for alias in ("champion", f"by-{version}"):
            with aliases.alone(tmp_path):
                aliases.promote(folder, alias, version)

    threads = [threading.Thread(target=promote, args=(version,)) for version in range(1, 13)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.update(aliases.read_aliases(folder))  # never half a file
    for thread in threads:
        thread.join()
    known = aliases.read_aliases(folder)
    assert set(known) == {"champion", *(f"by-{version}" for version in range(1, 13))}
    assert seen <= set(known)
    champion = known["champion"]
    assert sorted([champion.version, *champion.before]) == list(range(1, 13))


def test_an_alias_of_an_installed_catalogue_is_kept_in_ones_own_folder(three, tmp_path):
    from streamapp.models import Registry

    own = tmp_path / "own"  # it comes into being with the first promotion
    folders = [own, three.models_dir]
    registry = Registry(folders, three.cache, threads=1)
    Repository(registry, own).promote("embed/tiny@2", "champion")
    assert not (three.models_dir / "embed/tiny/aliases.json").exists()
    again = Registry(folders, three.cache, threads=1)
    assert again.manifest("embed/tiny@champion").version == 2
    assert registry.refresh()
    assert registry.manifest("embed/tiny@champion").version == 2
