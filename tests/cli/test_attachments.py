"""``streamapp attachments``: listed, and swept by age."""

import json
import os

import pytest
from machine import free_ports

from streamapp.cli import main
from streamapp.gateway.blobs import Folder

DAY_S = 86_400


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A verb in an empty project: exit code and output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        code = main(["attachments", *arguments, "--home", str(tmp_path / "home")])
        return code, capsys.readouterr().out

    return call


@pytest.fixture
def kept(tmp_path):
    """Contents to their digests, aged by as many days as they have bytes."""
    folder = Folder(tmp_path / "home" / "attachments")
    digests = {content: folder.put(content) for content in (b"x" * 3, b"y" * 40)}
    for content, digest in digests.items():
        path = tmp_path / "home" / "attachments" / digest[:2] / digest
        at_s = path.stat().st_mtime - len(content) * DAY_S
        os.utime(path, (at_s, at_s))
    return digests


def test_they_are_listed_the_largest_first(run, kept):
    code, said = run("ls", "--json")
    assert code == 0
    listed = json.loads(said)
    assert [one["sha256"] for one in listed] == [kept[b"y" * 40], kept[b"x" * 3]]
    assert [one["age_s"] // DAY_S for one in listed] == [40, 3]
    code, said = run("ls")
    assert (code, "2 attachments, 43 B" in said) == (0, True)


def test_the_old_ones_are_swept(run, kept):
    assert run("sweep", "--json") == (0, '{\n  "removed": 1,\n  "bytes": 40\n}\n')
    assert run("sweep", "--older-than", "2") == (0, "removed 1 attachment, 3 B\n")


@pytest.mark.parametrize("verb", ["ls", "sweep"])
def test_a_store_of_objects_that_does_not_answer_is_said_in_two_lines(run, verb):
    code, said = run(verb, "--json", "--attachments-url", f"ftp://127.0.0.1:{free_ports(1)[0]}/x")
    error = json.loads(said)["error"]
    assert (code, error["code"]) == (75, "attachment.unreachable")
    assert "STREAMAPP_ATTACHMENTS_URL" in error["fix"]
    assert run("ls", "--json") == (0, "[]\n")


def test_nothing_was_ever_kept(run):
    assert run("ls", "--json") == (0, "[]\n")
    assert run("sweep") == (0, "removed 0 attachments, 0 B\n")


def test_a_scheme_that_nobody_knows_is_refused(run, monkeypatch):
    monkeypatch.setenv("STREAMAPP_ATTACHMENTS_URL", "nope://bucket/path")
    assert run("ls")[0] == 2


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999", "nope://x"])
def test_a_wrong_address_is_refused_by_name(run, url):
    code, out = run("ls", "--json", "--attachments-url", url)
    assert code == 2
    error = json.loads(out)["error"]
    assert url in error["message"]
    assert "s3://bucket/path" in error["fix"]
