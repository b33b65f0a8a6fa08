"""The command line as a whole: help, suggestions, errors, what it imports."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import click
import pytest
from command_tree import every_command

from streamapp.cli import app
from streamapp.cli.app import VERBS, main, streamapp
from streamapp.cli.framework import SYNONYMS
from streamapp.core.errors import Halt, Refuse, Reject, Retry

HEAVY = {"faust", "mode", "pyarrow", "duckdb", "onnxruntime", "onnx", "numpy", "aiohttp", "rich"}


def _imports(*arguments: str) -> set[str]:
    """The top-level modules that a command line imports, in a process of its own."""
    code = (
        "import sys\nfrom streamapp.cli import main\n"
        f"main({list(arguments)!r})\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("send", "--help"), ("completion", "bash")])
def test_help_imports_nothing_heavy(arguments):
    assert not _imports(*arguments) & HEAVY


def test_help_lists_every_verb(run):
    result = run("--help")
    assert result.code == 0
    for name, entry in VERBS.items():
        assert f"  {name} " in result.out
        assert entry.about in result.out


def test_listing_and_removing_have_both_of_their_names_everywhere(run):
    """Help shows one of the two, and the other does the same."""
    seen = set()
    for path, _ in every_command():
        *group, name = path.split()
        if group and name in SYNONYMS:
            assert run(*group, SYNONYMS[name], "--help") == run(*group, name, "--help")
            assert f"  {SYNONYMS[name]} " not in run(*group, "--help").out
            seen.add(path)
    assert seen >= {"topics ls", "dlq ls", "models list", "models rm", "ring attractors remove"}
    assert "no verb 'ls'" in run("ls").err  # where there is nothing to list


def test_every_help_ends_in_examples(run):
    for path, _command in [("", streamapp), *every_command()]:
        result = run(*path.split(), "--help")
        assert result.code == 0, path
        examples = result.out.partition("\nExamples:\n")[2].splitlines()
        assert examples, path
        assert all(line.startswith("  ") for line in examples), path
        assert any("streamapp" in line for line in examples), path


@pytest.mark.parametrize("words", [(), ("ring",), ("models",)])
def test_a_group_without_its_verb_shows_its_help(run, words):
    result = run(*words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("Usage: streamapp")
    assert "fix:" not in result.err


def test_every_example_names_verbs_and_options_that_exist():
    for path, command in every_command():
        for example in command.examples:
            words = example.partition("#")[0].partition("|")[0].split()
            if "streamapp" not in words:
                continue
            called, rest = resolve(words[words.index("streamapp") + 1 :])
            known = {option for param in called.params for option in param.opts}
            used = {word for word in rest if word.startswith("--")}
            assert used <= known, f"{path}: {example}"


def resolve(words):
    """The command that these words call, and what is left of them."""
    command = streamapp
    while isinstance(command, click.Group):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            break
        command = command.get_command(click.Context(command), words[0])
        assert command is not None, words
        words = words[1:]
    return command, words


def test_entries_point_at_commands():
    for entry in VERBS.values():
        module, _, attribute = entry.where.partition(":")
        command = getattr(import_module(f"streamapp.cli.{module}"), attribute)
        assert isinstance(command, click.Command)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["qeury"], "query"), (["topcis"], "topics"), (["ring", "stats"], "stat"), (["dmo"], "demo")],
)
def test_a_mistyped_verb_gets_a_suggestion(run, typed, meant):
    result = run(*typed)
    assert result.code == 2
    assert f"Did you mean '{meant}'?" in result.err


def test_a_verb_unlike_any_other_gets_the_list(run):
    result = run("xyzzy")
    assert result.code == 2
    assert "There are: init, up, demo" in result.err


def test_a_mistyped_option_gets_a_suggestion(run):
    result = run("query", "select 1", "--jsno")
    assert result.code == 2
    assert "--json" in result.err
    assert "see `streamapp query --help`" in result.err


def test_version(run):
    assert run("--version").out == f"streamapp {version('streamapp')}\n"


def test_no_arguments_show_the_help(run):
    assert "Usage: streamapp" in "".join(run()[1:])


@pytest.mark.parametrize(("error", "code"), [(Refuse, 2), (Retry, 75), (Reject, 65), (Halt, 70)])
def test_our_errors_become_two_lines_and_an_exit_code(run, monkeypatch, error, code):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise error("thing.reason", "the thing is wrong", "mend the thing")

    monkeypatch.setattr("streamapp.cli.config.load", fail)
    result = run("config", "show")
    assert result == (code, "", "error: the thing is wrong\nfix: mend the thing\n")


def test_with_json_an_error_is_json(run):
    result = run("config", "show", "--json", "--gateway-port", "many")
    assert result.code == 2
    assert result.json["error"] == {
        "code": "config.number",
        "message": "gateway_port = 'many' (flag) is not a whole number",
        "fix": "give digits only",
    }
    assert not result.err


def test_an_unexpected_error_is_no_traceback_unless_debug(run, monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("streamapp.cli.config.load", fail)
    result = run("config", "show")
    assert result.code == 70
    assert "Traceback" not in result.err
    assert "unexpected KeyError: 'lost'" in result.err
    assert "--debug" in result.err
    assert "Traceback" in run("config", "show", "--debug").err


def test_a_file_that_cannot_be_used_is_named_and_is_no_unexpected_error(run, monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise NotADirectoryError(20, "Not a directory", "file/models")

    monkeypatch.setattr("streamapp.cli.config.load", fail)
    result = run("config", "show")
    assert result.code == 2
    assert result.err.startswith("error: file/models: Not a directory\nfix: check the path")


def test_what_is_not_utf_8_is_named(run):
    result = run("doctor", "--flight-host", "\udcff")
    assert result.code == 2
    assert "'\\udcff' is not UTF-8" in result.err


def test_ctrl_c_is_130(run, monkeypatch):
    def interrupt(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("streamapp.cli.config.load", interrupt)
    result = run("config", "show")
    assert result.code == 130
    assert "Traceback" not in result.err


def test_ctrl_c_while_modules_load_is_130_and_no_traceback():
    code = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "streamapp.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from streamapp.cli import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_reader_that_went_away_is_no_error():
    code = (
        "import sys; from streamapp.cli import main; sys.exit(main(['config', 'show', '--json']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, err = process.communicate()
    assert not err


def test_colour_only_on_a_terminal_and_never_with_no_color():
    command = [sys.executable, "-m", "streamapp.cli", "config", "show"]

    def output_on_a_terminal(**extra: str) -> bytes:
        ours, theirs = os.openpty()
        env = {**os.environ, "TERM": "xterm-256color", **extra}  # the child's
        env.pop("NO_COLOR", None) if not extra else None
        with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
            os.close(theirs)
            chunks = []
            try:
                while chunk := os.read(ours, 65536):
                    chunks.append(chunk)
            except OSError:  # EIO: the other end is closed
                pass
            process.wait()
        os.close(ours)
        return b"".join(chunks)

    assert b"\x1b[2m" in output_on_a_terminal()
    assert b"\x1b[3" not in output_on_a_terminal(NO_COLOR="1")
    piped = subprocess.run(command, capture_output=True, check=True)
    assert b"\x1b" not in piped.stdout


def test_main_takes_the_process_arguments(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["streamapp", "--help"])
    assert main() == 0
    assert app.__doc__
    assert "Usage: streamapp" in capsys.readouterr().out
