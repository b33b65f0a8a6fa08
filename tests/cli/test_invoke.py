"""``streamapp invoke``: one stage on a few events."""

import io
import json
import os
import subprocess
import sys

import pytest

from streamapp.cli.invoke import _options

STAGES = """
from streamapp.plugin import Reject, stage

@stage("shout", version=1, reads=["text"], writes={"shouted": "string", "letters": "int32"})
def shout(text):
    if text == "silence":
        raise Reject("shout.silence", "there is nothing to shout")
    return {"shouted": text.upper(), "letters": 10 // (1 if text != "zero" else 0)}
"""
TWO = """
from streamapp.plugin import BaseStage, stage
import pyarrow as pa

class Tone(BaseStage):
    name = "tone"
    reads = ("text", "mood", "language")
    writes = {"tone": pa.string()}
    accepts = {"mark": str}

    def enrich(self, batch):
        mark = self.options.get("mark", "!")
        rows = zip(batch.strings("mood"), batch.strings("language"))
        return {"tone": pa.array([f"{mood}{mark}{language}" for mood, language in rows])}

@stage("other", version=1, reads=[], writes={"other": "int32"})
def other():
    return {"other": 1}

number = 3
def nonsense(options):
    return 7
"""


@pytest.fixture
def work(clean, monkeypatch):
    """A folder with stages in files; what they put on the path is taken off again."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (clean / "shout_stage.py").write_text(STAGES)
    (clean / "two_stages.py").write_text(TWO)
    return clean


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def fixture(work, text):
    (work / "events.json").write_text(text)
    return "events.json"


def test_an_installed_stage_on_a_text(run):
    result = run("invoke", "language", "--text", "Quero cancelar meu plano", "--json")
    assert result.code == 0
    [line] = lines(result)
    assert line["language"] == "pt"
    assert (line["event"], line["line"]) == (1, 1)
    assert "language " in result.err
    assert " ms" in result.err


def test_a_table_shows_the_text_and_what_was_written(run, work):
    result = run("invoke", "shout_stage.py", "--text", "hello", "--text", "x" * 100)
    assert result.code == 0
    header, first, second = result.out.splitlines()
    assert header.split() == ["event", "text", "shouted", "letters"]
    assert first.split() == ["1", "hello", "HELLO", "10"]
    assert f"{'x' * 60}…" in second


@pytest.mark.parametrize(
    "text",
    [
        '{"message": "a"}\n{"message": "b"}\n',
        '[{"message": "a"}, {"message": "b"}]',
        '\ufeff[\n {"message": "a"},\n\n {"message": "b"}\n]\n',
        '{\n "message": "a"\n}\n\n{"message":\n"b"}',
        '[]\n[{"message": "a"}] {"message": "b"}',
    ],
)
def test_an_object_an_array_or_lines(run, work, text):
    result = run("invoke", "shout_stage.py:shout", fixture(work, text), "--json")
    assert [line["shouted"] for line in lines(result)] == ["A", "B"]


def test_an_id_that_comes_twice_is_dropped_and_said(run, work):
    text = '{"id": "1", "message": "a"}\n{"id": "1", "message": "b"}'
    result = run("invoke", "shout_stage.py", fixture(work, text), "--json")
    assert [line["shouted"] for line in lines(result)] == ["A"]
    assert "dropped, as a worker does: 1 with the id of another\n" in result.err


def test_lines_are_those_of_the_file(run, work):
    text = '[\n {"message": "a"},\n\n {"message": "b"}\n]\n{"message": "c"}'
    result = run("invoke", "shout_stage.py", fixture(work, text), "--json")
    assert [line["line"] for line in lines(result)] == [2, 4, 6]


def test_standard_input(run, work, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b'{"message": "a"}\n{"message" "b"}'))
    monkeypatch.setattr(sys, "stdin", stream)
    result = run("invoke", "shout_stage.py", "-")
    assert result.code == 2
    assert "standard input:2: not JSON: Expecting ':'" in result.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}\n{"a": ', "events.json:2: not JSON"),
        ('[{"a": 1}\n {"a": 2}]', "events.json:2: not JSON: the array goes on"),
        ('[{"a": 1},\n]', "events.json:2: not JSON"),
        ('[{"a": 1}', "events.json:1: not JSON"),
        ("hello", "events.json:1: not JSON"),
        ("", "holds no event"),
        ("[]", "holds no event"),
        ("[" * 5000, "events.json:1: not JSON"),
        ('{"a":' * 50_000, "events.json:1: not JSON"),
    ],
)
def test_a_bad_fixture_is_refused_with_file_and_line(run, work, text, says):
    result = run("invoke", "shout_stage.py", fixture(work, text))
    assert result.code == 2
    assert says in result.err
    assert "fix: write an object" in result.err
    assert "Traceback" not in result.err


def test_other_fixtures_are_refused(run, work):
    (work / "latin.json").write_bytes(b'{"a": 1}\n{"message": "\xe9"}')
    assert "latin.json:2: not UTF-8" in run("invoke", "shout_stage.py", "latin.json").err
    assert "nowhere.json: No such file" in run("invoke", "shout_stage.py", "nowhere.json").err
    assert "give a FIXTURE, or --text" in run("invoke", "shout_stage.py").err
    both = run("invoke", "shout_stage.py", "latin.json", "--text", "x")
    assert (both.code, "or --text" in both.err) == (2, True)


def test_rejects_are_shown_with_their_reason_and_65(run, work):
    text = '{"message": "a"}\n{"message": "silence"}\n3\n{"message": "zero"}\n{"message": "b"}'
    path = fixture(work, text)
    result = run("invoke", "shout_stage.py", path)
    assert result.code == 65
    assert [row.split()[0] for row in result.out.splitlines()[1:]] == ["1", "5"]
    assert (
        "events.json:2: rejected by shout: shout.silence: there is nothing to shout" in result.err
    )
    assert "events.json:3: rejected by wire: event.shape" in result.err
    zero = [line for line in result.err.splitlines() if "events.json:4" in line]
    assert len(zero) == 1
    assert zero[0].startswith("events.json:4: rejected by shout: stage.error: ZeroDivisionError: ")
    assert zero[0].endswith(" (shout_stage.py:8)")
    assert "Traceback" not in result.err
    result = run("invoke", "shout_stage.py", path, "--json")
    assert result.code == 65
    found = lines(result)
    assert [line["event"] for line in found] == [1, 2, 3, 4, 5]
    assert found[1]["rejected"]["code"] == "shout.silence"
    assert found[3]["rejected"]["at"] == "shout_stage.py:8"
    assert "at" not in found[1]["rejected"]


def test_only_rejects_are_no_table(run, work):
    result = run("invoke", "shout_stage.py", "--text", "zero")
    assert (result.code, result.out) == (65, "")


def test_stages_that_it_reads_from_run_first_and_are_named(run, work):
    path = fixture(work, '{"message": "Quero cancelar meu plano", "mood": "sad"}')
    result = run("invoke", "two_stages.py:Tone", path, "--json")
    assert result.code == 0, result.err
    assert lines(result)[0]["tone"] == "sad!pt"
    assert "language ran first: it writes language\n" in result.err


def test_a_column_of_the_fixture_is_taken_and_nothing_runs_first(run, work):
    text = '{"message": "x", "mood": "sad", "language": "tlh"}\n{"mood": null, "language": "en"}'
    result = run("invoke", "two_stages.py:Tone", fixture(work, text), "--json")
    assert [line["tone"] for line in lines(result)] == ["sad!tlh", "None!en"]
    assert "ran first" not in result.err


def test_a_column_of_the_fixture_serves_the_stages_before_too(run, work):
    (work / "glad.py").write_text(
        TWO.replace('("text", "mood", "language")', '("sentiment",)').replace(
            'rows = zip(batch.strings("mood"), batch.strings("language"))',
            'rows = [("glad", value > 0) for value in batch.column("sentiment").to_pylist()]',
        )
    )
    path = fixture(work, '{"message": "thank you, great", "language": "en"}')
    result = run("invoke", "glad.py:Tone", path, "--json")
    assert lines(result)[0]["tone"] == "glad!True"
    assert "sentiment ran first: it writes sentiment\n" in result.err
    assert "language ran first" not in result.err


def test_vectors_of_the_fixture(run, work):
    text = '{"conversation": "c", "embedding": [1, 0, 0]}\n{"conversation": "c", "embedding": [0, 1, 0.5]}'
    result = run("invoke", "kinetics", fixture(work, text), "--json")
    first, second = (line["spin"] for line in lines(result))
    assert first == [1, 0, 0, 0] != second


def test_vectors_that_are_all_null_are_vectors(run, work):
    """They have the length that the model gives them."""
    text = '{"conversation": "c", "embedding": null}\n{"conversation": "c"}'
    result = run("invoke", "kinetics", fixture(work, text), "--json")
    assert result.code == 0, result.err
    assert [line["spin"] for line in lines(result)] == [[1, 0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        ("[1, 2]", "'embedding' is 2 numbers, 3 in the lines before"),
        ("[1, null, 3]", "'embedding' is [1, null, 3], not a list of numbers"),
        ('[1, 2, "3"]', "not a list of numbers"),
        ("[1, 2, 1e39]", "not a list of numbers"),
        ("[]", "'embedding' is [], not a list of numbers"),
        ("3", "'embedding' is 3, not a list of numbers"),
    ],
)
def test_what_is_no_vector_is_refused(run, work, vector, says):
    text = f'{{"conversation": "c", "embedding": [1, 0, 0]}}\n{{"embedding": {vector}}}'
    result = run("invoke", "kinetics", fixture(work, text))
    assert result.code == 2
    assert "error: events.json:2: 'embedding' is " in result.err
    assert says in result.err
    assert "fix: give every event as many numbers, or null" in result.err


@pytest.mark.parametrize("key", ["message", "other", "embedding"])
def test_an_integer_of_five_thousand_digits(run, work, key):
    text = f'{{"message": "a"}}\n{{"{key}": {"9" * 5000}}}'
    result = run("invoke", "kinetics", fixture(work, text))
    assert result.code == 2
    assert "error: events.json:2: an integer has more than 4,300 digits" in result.err
    assert "fix: write it as a string" in result.err


@pytest.mark.parametrize("method", ["__init__", "declare", "open"])
def test_a_stage_that_fails_before_its_first_event(run, work, method):
    broken = f"""
    def {method}(self, *arguments):
        raise KeyError("where")
"""
    text = TWO.replace('    accepts = {"mark": str}\n', broken).replace(
        ', "mood", "language")', ",)"
    )
    (work / "broken.py").write_text(text)
    result = run("invoke", "broken.py:Tone", "--text", "x")
    assert result.code == 2
    assert f"stage 'tone' fails in {method}: KeyError: 'where' (broken.py:" in result.err
    assert "fix: mend it there" in result.err
    assert "Traceback" not in result.err


def test_a_column_that_nobody_writes_is_asked_for(run, work):
    result = run("invoke", "two_stages.py:Tone", "--text", "x")
    assert result.code == 2
    assert "needs the column 'mood', which no stage writes" in result.err
    assert 'put it into the fixture: {"mood": ...}' in result.err


def test_half_of_what_one_stage_writes_is_refused(run, work):
    (work / "half.py").write_text(
        TWO.replace('("text", "mood", "language")', '("language", "language_confidence")')
    )
    path = fixture(work, '{"message": "x", "language": "en"}')
    result = run("invoke", "half.py:Tone", path)
    assert result.code == 2
    assert (
        "gives 'language' but not 'language_confidence'; stage 'language' writes both" in result.err
    )


def test_values_of_a_column_that_do_not_go_together(run, work):
    text = '{"mood": "sad", "language": "x"}\n{"mood": 3, "language": "x"}'
    result = run("invoke", "two_stages.py:Tone", fixture(work, text))
    assert result.code == 2
    assert "events.json:2: 'mood' is 3, unlike the lines before" in result.err


def test_options_come_from_the_workflow_and_the_line(run, work):
    path = fixture(work, '{"message": "x", "mood": "a", "language": "b"}')
    result = run("invoke", "two_stages.py:Tone", path, "--option", "mark=?", "--json")
    assert lines(result)[0]["tone"] == "a?b"
    result = run("invoke", "two_stages.py:Tone", path, "--option", "mork=?")
    assert (result.code, "did you mean mark" in result.err) == (2, True)
    assert run("invoke", "two_stages.py:Tone", path, "--option", "mark").code == 2
    (work / "topics").mkdir()
    (work / "topics/workflow.toml").write_text(
        '[workflow]\nstages = ["language"]\n[stages.language]\nlanguages = ["de", "nl"]\n'
    )
    result = run("invoke", "language", "--text", "hello", "--topics-dir", "topics", "--json")
    assert lines(result)[0]["language"] in {"de", "nl"}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("langauge", "did you mean 'language'?"),
        ("shout", "one of your own: file.py:stage"),
        ("nowhere.py", "there is no file nowhere.py"),
        ("nowhere:stage", "No module named 'nowhere'"),
        ("shout_stage.py:shoot", "did you mean shout?"),
        ("two_stages.py", "holds 2 stages: Tone, other"),
        ("two_stages.py:number", "has no stage 'number'"),
        ("two_stages.py:nonsense", "makes int, not a stage"),
        ("broken.py", "ZeroDivisionError: division by zero (/"),
        ("wrong.py", "SyntaxError"),
        ("empty.py", "holds 0 stages: none"),
    ],
)
def test_what_is_no_stage_is_refused(run, work, typed, says):
    (work / "broken.py").write_text("x = 1\n1 / 0\n")
    (work / "wrong.py").write_text("def\n")
    (work / "empty.py").write_text("")
    result = run("invoke", typed, "--text", "x")
    assert result.code == 2
    assert says in result.err
    assert "fix: " in result.err
    assert "Traceback" not in result.err


def test_a_module_of_the_folder(run, work):
    result = run("invoke", "shout_stage:shout", "--text", "a", "--json")
    assert lines(result)[0]["shouted"] == "A"
    sys.modules.pop("shout_stage")


def test_names_and_files_complete(work):
    def complete(*words):
        env = {
            **os.environ,
            "_STREAMAPP_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("streamapp", *words)),
            "COMP_CWORD": str(len(words)),
        }
        command = [sys.executable, "-m", "streamapp.cli"]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
        return done.stdout.splitlines()

    assert complete("invoke", "lang") == ["plain,language"]
    assert complete("invoke", "./sh") == ["file,./sh"]


def test_an_option_may_be_a_table(run, clean):
    given = 'labels={yes = "fine", no = ["stop", "end"]}'
    for text in (given, 'labels={"yes": "fine", "no": ["stop"]}'):
        assert _options(None, None, [text])["labels"]["yes"] == "fine"
    assert _options(None, None, ["a=x", "b=1.5", "c=[1, 2]", "d="]) == {
        "a": "x", "b": 1.5, "c": [1, 2], "d": "",
    }  # fmt: skip
    result = run("invoke", "intent", "--text", "x", "--option", "labels={yes")
    assert result.code == 2
    assert "workflow.toml" in result.err
    result = run("invoke", "intent", "--text", "x", "--option", "labels=yes")
    assert result.code == 2
    assert "give a table" in result.err
