"""Every save shows the last rows through the stage that was edited, or what is wrong with it."""

import json
import os

import pytest
from demo_operations import demo  # noqa: F401  # a fixture

from streamapp.cli.dev import Preview, saves
from streamapp.core.config import load
from streamapp.core.errors import Refuse

pytestmark = pytest.mark.usefixtures("demo")
FILE = """name: t
inputs:
  rows: {{type: file, path: rows.jsonl}}
stages:
  - {{name: counted, service: demo, operation: words, config: {{least: {least}}}}}
  - {{name: sums, service: demo, operation: pairs, depends_on: counted, config: {{size: {size}}}}}
outputs:
  sums: {{source: sums, format: json}}
"""


BUG = "operation: fails, config: {how: bug}"


@pytest.fixture
def file(clean):
    rows = [{"n": n, "text": "a b"} for n in range(100)]
    (clean / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = clean / "flow.yaml"
    path.write_text(FILE.format(least=0, size=2))
    return path


def test_the_last_rows_go_through_the_stage_that_was_edited(file):
    preview = Preview(load()[0], file, {}, rows_max=4)
    shown = preview.look(None)
    assert (shown.stage, shown.rows_in) == ("sums", 4)
    assert shown.table.to_pylist() == [{"sum": 193, "rows": 2}, {"sum": 197, "rows": 2}]
    file.write_text(FILE.format(least=3, size=2))
    shown = preview.look(None)
    assert (shown.stage, shown.table.num_rows, shown.added) == ("counted", 0, ("words",))
    file.write_text(FILE.format(least=0, size=4))
    assert preview.look(None).table.to_pylist() == [{"sum": 390, "rows": 4}]
    assert preview.look("counted").table["n"].to_pylist() == [96, 97, 98, 99]
    (file.parent / "rows.jsonl").write_text('{"n": 5, "text": "new"}\n')
    assert preview.look(None).table.num_rows == 1


def test_what_is_wrong_has_its_place_and_the_next_save_is_shown(file):
    preview = Preview(load()[0], file, {}, rows_max=4)
    file.write_text(FILE.format(least="oops", size=2))
    with pytest.raises(Refuse, match=r"flow.yaml:5:\d+: .*least"):
        preview.look(None)
    good = FILE.format(least=0, size=2)
    lines = good.replace("operation: words, config: {least: 0}", BUG).splitlines()
    file.write_text("\n".join([*lines[:5], ""]))
    with pytest.raises(Refuse, match="stage 'counted': ZeroDivisionError: secret insides"):
        preview.look(None)
    file.write_text(good)
    assert preview.look(None).stage == "sums"


class Seen(list):
    """Keeps what came before an iterable was interrupted."""

    def extend(self, values):
        for value in values:
            self.append(value)


def test_a_save_of_the_file_or_the_projects_python_is_seen(file, monkeypatch):
    (file.parent / "streamapp.toml").write_text('[interop.python]\npaths = ["."]\n')
    looked = iter(range(100))
    changes = {1: file, 2: file.parent / "mine.py", 3: file.parent / "streamapp.toml"}
    seen = Seen()

    def save(_seconds):
        count = next(looked)
        if path := changes.get(count):
            with path.open("a") as out:
                out.write("\n")
            os.utime(path, ns=(count, count))
        if count == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("streamapp.cli.dev.time.sleep", save)
    with pytest.raises(KeyboardInterrupt):
        seen.extend(saves(file))
    assert len(seen) == 4


def test_once_prints_and_ends(run, file):
    found = run("dev", file, "--once", "--json", "--rows", "2").json
    assert (found["stage"], found["rows"]) == ("sums", [{"sum": 197, "rows": 2}])
    told = run("dev", file, "--once")
    assert "demo.pairs  10 rows in, 5 out, 0 aside" in told.out
    wrong = run("dev", file, "--once", "--stage", "sum")
    assert (wrong.code, "did you mean 'sums'?" in wrong.err) == (2, True)


def test_rows_that_cannot_be_read_are_shown_aside_as_a_run_sets_them_aside(run, file):
    rows = file.parent / "rows.jsonl"
    rows.write_text('{"n": 1, "text": "a"}\n{"n": oh}\n{"n": 2, "text": "b"}\n')
    found = run("dev", file, "--once", "--json").json
    assert found["rows"] == [{"sum": 3, "rows": 2}]
    [aside] = found["aside"]
    assert "rows.jsonl:2: " in aside["reason"]
    told = run("dev", file, "--once")
    assert (told.code, "2 rows in, 1 out, 1 aside" in told.out) == (0, True)
    preview = Preview(load()[0], file, {}, rows_max=4)
    assert len(preview.look(None).aside) == len(preview.look(None).aside) == 1


def test_times_beyond_pythons_calendar_are_shown_as_arrow_writes_them(run, file):
    far = "make_timestamp(n * 400000000000000000)"
    stage = f'operation: map, service: pipeline, config: {{columns: {{at: "{far}"}}}}'
    lines = FILE.format(least=0, size=2).splitlines()
    lines[4:6] = [f"  - {{name: sums, {stage}}}"]
    file.write_text("\n".join([*lines, ""]))
    (file.parent / "rows.jsonl").write_text('{"n": 1}\n')
    shown = "14645-06-30 15:06:40.000000"
    found = run("dev", file, "--once", "--json")
    assert (found.code, found.json["rows"]) == (0, [{"n": 1, "at": shown}])
    assert shown in run("dev", file, "--once").out


def test_rows_that_a_stage_or_its_source_sets_aside_are_shown_with_why(run, file):
    (file.parent / "streamapp.toml").write_text('[sources.names]\npath = "names.csv"\n')
    (file.parent / "names.csv").write_text("name,n\na,1\nb,1,2\nc,3\n")
    rows = file.parent / "rows.jsonl"
    rows.write_text('{"n": 1, "text": "a"}\n{"n": 2, "text": null}\n')
    found = run("dev", file, "--once", "--json", "--stage", "counted").json
    assert found["aside"] == [{"reason": "no text", "rows": 1}]
    lines = FILE.format(least=0, size=2).splitlines()
    lines[4:6] = ["  - {name: sums, service: demo, operation: lookup}"]
    file.write_text("\n".join([*lines, ""]))
    found = run("dev", file, "--once", "--json").json
    assert found["rows"] == [{"rows": 2}]
    [aside] = found["aside"]
    assert aside["rows"] == 1
    assert aside["reason"].startswith("names.csv:3: ")
    told = run("dev", file, "--once").out
    assert f"aside: {aside['reason']} (1 row)" in told
