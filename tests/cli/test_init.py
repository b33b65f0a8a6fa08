"""``streamapp init``: a project that runs, and nothing overwritten."""

import shlex
import subprocess

import pytest
from gateway_thread import GatewayThread

from streamapp.topics.catalogue import defaults


def test_a_project_has_all_that_it_needs(run, clean):
    result = run("init", "shop")
    assert result.code == 0, result.err
    assert "next: cd shop && streamapp up" in result.out
    for kind in ("topics", "models"):
        for path in defaults(kind).rglob("*"):
            if path.is_file():
                copy = clean / "shop" / kind / path.relative_to(defaults(kind))
                assert copy.read_bytes() == path.read_bytes()
    text = (clean / "shop/README.md").read_text()
    assert text.startswith("# shop\n")
    for name in ("streamapp.toml", "Procfile", ".gitignore", "stages/word_count"):
        assert (clean / "shop" / name).exists()
    for line in (clean / "shop/Procfile").read_text().splitlines():
        name, _, command = line.partition(": ")
        assert command == f"streamapp {name}"


def test_the_readme_s_event_is_taken(run, clean):
    assert run("init", "shop").code == 0
    lines = (clean / "shop/README.md").read_text().splitlines()
    [curl] = [line for line in lines if "curl" in line]
    with GatewayThread() as gateway:
        command = curl.replace("http://127.0.0.1:9382", gateway.url)
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True)
    assert '"id"' in done.stdout
    assert "error" not in done.stdout


def test_the_folder_one_is_in_needs_no_cd(run, clean):
    assert run("init", ".").out.splitlines()[-1] == "next: streamapp up"


def test_settings_of_the_project_are_found_from_below(run, clean, monkeypatch):
    run("init", "shop")
    monkeypatch.delenv("STREAMAPP_HOME")
    monkeypatch.chdir(clean / "shop/stages")
    shown = run("config", "show", "--json").json
    assert shown["home"]["value"] == f"{clean}/shop/.streamapp"
    assert shown["topics_dir"]["value"] == f"{clean}/shop/topics"
    assert shown["models_dir"]["value"] == f"{clean}/shop/models"
    assert shown["home"]["from"] == f"{clean}/shop/streamapp.toml"


def test_the_project_s_own_topics_and_models_are_used(run, clean, monkeypatch):
    run("init", "shop")
    monkeypatch.chdir(clean / "shop")
    assert run("topics", "apply", "--json").code == 0
    assert len(run("models", "list", "--json").json) >= 2
    assert run("stage", "ls").code == 0


def test_a_file_that_is_there_is_named_and_kept(run, clean):
    (clean / "shop").mkdir()
    (clean / "shop/Procfile").write_text("mine\n")
    result = run("init", "shop")
    assert result.code == 2
    assert "shop/Procfile is there already" in result.err
    assert [path.name for path in (clean / "shop").iterdir()] == ["Procfile"]


def test_missing_writes_only_what_is_not_there(run, clean):
    (clean / "Procfile").write_text("mine\n")
    assert run("init", ".", "--missing").code == 0
    assert (clean / "Procfile").read_text() == "mine\n"
    assert (clean / "streamapp.toml").is_file()
    assert "wrote 0 files" in run("init", ".", "--missing").out


def test_other_files_do_not_matter(run, clean):
    (clean / "notes.md").write_text("x")
    assert run("init", ".").code == 0


def test_an_empty_path_is_not_the_folder_one_is_in(run, clean):
    result = run("init", "")
    assert (result.code, "the path is empty" in result.err) == (2, True)
    assert not list(clean.iterdir())


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(run, clean, where):
    (clean / "file").write_text("")
    result = run("init", where)
    assert result.code == 2
    assert "cannot write" in result.err
