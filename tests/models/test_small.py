"""Files of a catalogue that are no files: each is named, and none is read without an end."""

import os

import pytest
from model_versions import NAME, Versions

from streamapp.core.errors import Refuse
from streamapp.models import aliases, small
from streamapp.models.download import _read_note
from streamapp.models.receipt import FILE as RECEIPT
from streamapp.models.tuned import FILE as TUNED

GARBAGE = {
    "no text": b'{"\xff": 1}',
    "deep": b'{"x":' + b"[" * 100_000,
    "cut": b'{"champ',
    "empty": b"",
    "another thing": b"[[]]",
}
ODD = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "shelf").add(1).promote(1)


def put(path, how):
    if path.exists():
        path.unlink()
    if how in GARBAGE:
        path.write_bytes(GARBAGE[how])
    else:
        ODD[how](path)


@pytest.mark.parametrize("how", [*GARBAGE, *ODD])
def test_aliases_that_are_none_are_named(versions, how):
    folder = versions.models_dir / NAME
    put(folder / aliases.FILE, how)
    registry = versions.registry()
    assert str(folder / aliases.FILE) in registry.catalogue.broken[NAME].error.message
    assert registry.manifest(f"{NAME}@1").version == 1
    put(folder / aliases.REMOVED, how)
    with pytest.raises(Refuse, match=aliases.REMOVED):
        aliases.removed(folder)


@pytest.mark.parametrize("how", [*GARBAGE, *ODD])
def test_a_receipt_that_is_none_is_as_good_as_no_pull(versions, how):
    folder = versions.registry().folder(f"{NAME}@1")
    put(folder / RECEIPT, how)
    assert not versions.registry().status(f"{NAME}@1").pulled
    with pytest.raises(Refuse, match="models pull"):
        versions.registry().files(f"{NAME}@1")


@pytest.mark.parametrize("how", [*GARBAGE, *ODD])
def test_what_tune_wrote_and_is_nothing_now_is_named(versions, how):
    registry = versions.registry()
    put(registry.folder(f"{NAME}@1") / TUNED, how)
    with pytest.raises(Refuse, match=TUNED) as caught:
        registry.tuned(f"{NAME}@1")
    assert "models tune" in caught.value.fix


@pytest.mark.parametrize("how", ["pipe", "folder", "endless", "deep", "large"])
def test_a_manifest_that_is_none_is_named_and_the_others_work_on(versions, how, monkeypatch):
    place = versions.models_dir / NAME / "2/manifest.toml"
    place.parent.mkdir()
    if how == "deep":
        place.write_text("x = " + "[" * 100_000)
    elif how == "large":
        monkeypatch.setattr(small, "BYTES_MAX", 1 << 20)
        place.write_text("# " + "x" * (1 << 20))
    else:
        put(place, how)
    registry = versions.registry()
    assert str(place) in registry.catalogue.broken[f"{NAME}@2"].error.message
    assert registry.manifest(f"{NAME}@1").version == 1


@pytest.mark.parametrize("how", [*GARBAGE, *ODD])
def test_the_note_of_a_download_that_is_none_means_a_new_one(tmp_path, how):
    put(tmp_path / "note", how)
    assert _read_note(tmp_path / "note").url == ""
