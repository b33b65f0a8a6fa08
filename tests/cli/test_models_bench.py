"""``streamapp models bench`` and ``tune``, on a tiny model of this disk."""

import json
from pathlib import Path

import pytest
from model_versions import NAME, Versions
from tiny_models import affine_model

from streamapp.cli import models_bench


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "shelf").add(1).promote(1)


@pytest.fixture
def models(run, versions):
    """``streamapp models VERB ...`` on that shelf."""
    places = ("--models-dir", versions.models_dir, "--models-cache", versions.cache)
    threads = {"bench": ("--threads", "2"), "tune": ("--threads", "2"), "show": ()}
    return lambda verb, *arguments: run("models", verb, *arguments, *places, *threads[verb])


def test_bench_measures_and_changes_nothing(models, versions):
    measured = models("bench", NAME, "--json").json
    assert [way["batch"] for way in measured] == [1, 4, 8, 16, 32]
    assert {(way["backend"], way["calls"], way["cosine"]) for way in measured} == {
        ("onnxruntime", 2, 1.0)
    }
    table = models("bench").out
    assert "rows/s" in table
    assert table.count("as pulled") == 5
    assert not list(versions.cache.rglob("tuned.json"))


def test_bench_takes_texts_of_a_file(models, clean):
    (clean / "texts.txt").write_text("a b\n\nc\n")
    assert len(models("bench", NAME, "--texts", "texts.txt", "--backends", "--json").json) >= 5


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no.txt: No such file"), (b"\n \n", "no line"), (b"ab\xff", "no.txt: byte 2 is")],
)
def test_texts_that_cannot_be_read(models, clean, content, says):
    if content is not None:
        (clean / "no.txt").write_bytes(content)
    result = models("bench", NAME, "--texts", "no.txt")
    assert result.code == 2
    assert says in result.err


def test_of_a_file_without_end_only_so_much_is_read():
    assert len(models_bench._read(Path("/dev/zero"))[0]) == models_bench.CHARS_MAX


def test_tune_writes_what_the_next_start_follows(models, versions):
    said = models("tune", NAME, "--json").json
    written = json.loads(Path(said["file"]).read_text())
    assert written["batch"] == said["chosen"]["batch"]
    assert len(written["measured"]["ways"]) == len(said["measured"])
    assert versions.registry().embedder().call.batch_texts == said["chosen"]["batch"]
    chosen = f"{said['chosen']['calls']} x {said['chosen']['threads']} threads"
    assert chosen in models("show", NAME).out
    assert chosen in models("show", NAME, "--json").json["run_as"]
    Path(said["file"]).write_text("{")
    assert "models tune" in models("show", NAME).out
    told = models("tune", NAME, "--no-variants").out
    assert "fastest: " in told
    assert "times as untuned" in told
    assert "is gone" in models("tune", NAME, "--forget").out
    assert models("show", NAME, "--json").json["run_as"] == ""
    assert versions.registry().embedder().call.batch_texts == 16
    assert "nothing to forget" in models("tune", NAME, "--forget").out
    assert models("tune", NAME, "--forget", "--json").json["forgotten"] == said["file"]
    assert not list(versions.cache.rglob(".tune-*"))


@pytest.mark.parametrize(("load", "warns"), [(0.1, False), (64.0, True)])
def test_a_busy_machine_is_said_before_anything_is_measured(models, monkeypatch, load, warns):
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    for verb in ("bench", "tune"):
        result = models(verb, NAME, "--json")
        assert ("busy" in result.err) is warns
        assert result.json


def test_limits_that_nothing_keeps_are_an_error(models):
    result = models("tune", NAME, "--alone-ms-max", "1e-9")
    assert result.code == 2
    assert "--alone-ms-max" in result.err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "x"])
@pytest.mark.parametrize("option", ["--alone-ms-max", "--cosine-min"])
def test_limits_that_are_no_limits(models, versions, option, value):
    if (option, value) == ("--cosine-min", "0"):
        return
    result = models("tune", NAME, option, value)
    assert result.code == 2
    assert option in result.err
    assert value in result.err
    assert not list(versions.cache.rglob("tuned.json"))


def test_texts_are_for_embedders(run, clean):
    affine_model(clean / "risk.onnx")
    places = ("--models-dir", "models", "--models-cache", "cache", "--home", "home")
    assert (
        run("models", "add", "risk.onnx", "--task", "tensor", "--name", "risk", *places).code == 0
    )
    (clean / "texts.txt").write_text("a b\n")
    for verb in ("bench", "tune"):
        result = run("models", verb, "tensor/risk", "--texts", "texts.txt", *places)
        assert result.code == 2
        assert "tensor/risk@1 is for tensor" in result.err


def test_a_model_that_is_not_pulled_says_how_to(models, versions):
    versions.add(2, pull=False)
    for verb in ("bench", "tune"):
        result = models(verb, f"{NAME}@2")
        assert result.code == 2
        assert "models pull" in result.err
