"""``streamapp dlq edit``: in an editor or by flags; what is sent is the same event, mended."""

import json
import stat
import sys
from pathlib import Path

import pytest
from dead_letters import VALUE, on_a_terminal, refused


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """``editor(program)``: EDITOR runs it as Python, with the file's path as ``path``."""

    def make(program):
        script = tmp_path / "editor.py"
        head = f"import sys; from pathlib import Path; path = Path(sys.argv[1]); folder = Path({str(tmp_path)!r})\n"
        script.write_text(head + program)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where an edit may be kept
        monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")

    return make


def test_edit_opens_the_editor_and_replays_what_was_saved(run, place, editor, tmp_path):
    at = place.die(VALUE, reason="hello is not allowed")
    editor(
        "text = path.read_text(); (folder / 'seen').write_text(text)\n"
        "(folder / 'mode').write_text(f'{path.stat().st_mode:o} {path.parent.stat().st_mode:o}')\n"
        "(folder / 'where').write_text(str(path))\n"
        "path.write_text(text.replace('\"hello\"', '\"good bye\"'))\n"
    )
    result = run("dlq", "edit", at, *place.flags)
    assert result.code == 0, result.err
    assert f"0:0 sent to {place.raw}:1:1, edited" in result.out
    seen = (tmp_path / "seen").read_text()
    assert seen.startswith(f"# Letter 0:0 of {place.dead}, from {place.raw}:1:0: picky, picky.bad")
    assert "# hello is not allowed\n" in seen
    assert '  "price": 1.50,\n' in seen
    modes = [stat.S_IMODE(int(mode, 8)) for mode in (tmp_path / "mode").read_text().split()]
    assert modes == [0o600, 0o700]
    assert not Path((tmp_path / "where").read_text()).parent.exists()
    sent = place.read(place.raw, 1)[1]
    assert sent.value == b'{"id":"e1","message":"good bye","price":1.50,"conversation_id":"c"}'
    assert sent.key == b"conv"
    told = run("dlq", "show", at, "--json", *place.flags).json
    assert told["replayed"][0]["edited"] is True
    assert told["value"].encode() == VALUE
    refused(run("dlq", "edit", at, *place.flags), 2, "replayed already")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("", ["nothing was changed", "nothing was sent"]),
        ("path.write_text('# only a comment\\n')", ["emptied"]),
        ("path.unlink()", ["emptied"]),
        ("path.write_text('{ ' + path.read_text().partition('{')[2])", ["nothing was changed"]),
        ("sys.exit(1)", ["Editing failed", "EDITOR"]),
        ("path.write_text(path.read_text().replace('e1', 'e2'))", ["the id of the event", "'e2'"]),
        ("path.write_text(path.read_text().replace('\"id\"', '\"no\"'))", ["the id of the event"]),
    ],
)
def test_an_edit_that_sends_nothing(run, local, editor, program, words):
    at = local.die(VALUE)
    editor(program)
    refused(run("dlq", "edit", at, *local.flags), 2, *words)
    assert len(local.read(local.raw, 1)) == 1


def test_an_editor_that_is_not_there(run, local, monkeypatch):
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    refused(run("dlq", "edit", local.die(VALUE), *local.flags), 2, "/no/such/editor")


def test_bad_json_is_kept_for_another_try(run, local, editor):
    at = local.die(VALUE)
    editor('path.write_text(\'{"id": "e1", "message": }\')')
    result = run("dlq", "edit", at, *local.flags)
    refused(result, 2, "not JSON", "nothing was sent")
    kept = Path(result.err.split("kept in ")[1].split(":")[0])
    assert "message" in kept.read_text()
    assert len(local.read(local.raw, 1)) == 1
    kept.write_text('{"id": "e1", "message": "mended"}')
    assert run("dlq", "edit", at, "--file", kept, *local.flags).code == 0
    assert local.read(local.raw, 1)[1].value == b'{"id": "e1", "message": "mended"}'


def test_on_a_terminal_bad_json_is_opened_again(local, editor):
    at = local.die(VALUE)
    editor(
        "tries = folder / 'tries'; n = len(tries.read_text()) if tries.exists() else 0\n"
        "tries.write_text('x' * (n + 1))\n"
        'path.write_text(\'{"id": "e1", "message": \' + (\'}\' if n == 0 else \'"ok"}\'))\n'
    )
    said = on_a_terminal(["edit", at, *local.flags], b"y\n")
    assert b"edit again?" in said
    assert local.read(local.raw, 1)[1].value == b'{"id":"e1","message":"ok"}'


def test_bytes_that_are_no_text_can_be_mended(run, local, editor):
    at = local.die(b'{"id": "e1", "message": "\xff caf\xc3\xa9"}', code="event.utf8", stage="wire")
    editor("path.write_text(path.read_text().replace('\\\\xff ', ''))")
    assert run("dlq", "edit", at, *local.flags).code == 0
    assert json.loads(local.read(local.raw, 1)[1].value) == {"id": "e1", "message": "café"}


def test_set_changes_members_and_leaves_the_others_as_they_are(run, place):
    at = place.die(VALUE)
    flags = ["--set", "message=good bye", "--set", "duration_ms=250", "--set", "plan=null"]
    result = run("dlq", "edit", at, *flags, "--json", *place.flags)
    assert result.code == 0, result.err
    assert result.json["to"] == {"topic": place.raw, "partition": 1, "offset": 1}
    assert place.read(place.raw, 1)[1].value == (
        b'{"id":"e1","message":"good bye","price":1.50,"conversation_id":"c",'
        b'"duration_ms":250,"plan":null}'
    )


@pytest.mark.parametrize(
    ("value", "flags", "code", "words"),
    [
        (VALUE, ["--set", "message"], 2, ["sets nothing"]),
        (VALUE, ["--set", "=x"], 2, ["sets nothing"]),
        (VALUE, ["--set", "message=7.5"], 65, ["message"]),
        (VALUE, ["--set", "time=soon"], 65, ["RFC 3339"]),
        (VALUE, ["--set", "id=other"], 2, ["the id of the event"]),
        (VALUE, ["--set", "message=hello", "--file", "-"], 2, ["one of --set and --file"]),
        (b"[1]", ["--set", "message=x"], 2, ["JSON object"]),
        (b"\x00\xff", ["--set", "message=x"], 2, ["JSON object"]),
        (b'{"a": 1, "a": 2}', ["--set", "message=x"], 2, ["'a' comes twice"]),
        (VALUE, ["--file", "/no/such/file"], 2, ["/no/such/file"]),
    ],
)
def test_edits_that_are_refused(run, local, value, flags, code, words):
    at = local.die(value)
    refused(run("dlq", "edit", at, *flags, *local.flags), code, *words)
    assert len(local.read(local.raw, 1)) == 1


def test_a_key_that_came_twice_is_mended_by_setting_it(run, local):
    at = local.die(b'{"id": "e", "message": "a", "message": "b"}', code="event.duplicate_key")
    assert run("dlq", "edit", at, "--set", "message=a", *local.flags).code == 0
    assert local.read(local.raw, 1)[1].value == b'{"id":"e","message":"a"}'
