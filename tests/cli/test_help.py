"""Every verb's help: it fits a terminal of 80 columns, and no option is left to be guessed."""

import re

import click
import pytest
from command_tree import every_command

COLUMNS = 80
COMMANDS = dict(every_command())


def options() -> list[tuple[str, click.Option]]:
    return [
        (path, param)
        for path, command in COMMANDS.items()
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
    ]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


def test_every_help_fits_80_columns(run):
    for path in ("", *COMMANDS):
        for line in run(*path.split(), "--help").out.splitlines():
            assert len(line) <= COLUMNS, f"{path}: {line}"


def test_a_group_says_of_its_verbs_the_whole_first_sentence(run):
    for path, command in COMMANDS.items():
        if not isinstance(command, click.Group):
            continue
        shown = run(*path.split(), "--help").out.partition("\nCommands:\n")[2]
        listed = " ".join(shown.partition("\nExamples:")[0].split())
        for name, sub in command.commands.items():
            about = " ".join((sub.short_help or sub.help).split()).split(". ")[0].rstrip(".")
            assert f"{name} {about}" in listed, path


def test_every_option_says_what_it_is_for():
    silent = [f"{path} {option.opts[0]}" for path, option in options() if not option.help]
    assert not silent


def test_every_number_or_choice_that_has_a_default_says_it(run):
    unsaid = []
    for path, option in options():
        if option.is_flag or option.multiple or not isinstance(option.default, int | float):
            continue
        listed = run(*path.split(), "--help").out.partition("\nOptions:\n")[2]
        said = listed.partition(f"{option.opts[0]} ")[2]
        if "default:" not in said.partition("\n  -")[0]:
            unsaid.append(f"{path} {option.opts[0]}")
    assert not unsaid


def test_a_number_is_asked_for_as_one_and_not_as_a_type_of_the_parser(run):
    for path in COMMANDS:
        said = run(*path.split(), "--help").out
        assert not re.search(r"\b(INTEGER|FLOAT|RANGE)\b", said), path


def test_zero_as_a_setting_s_default_is_said(run):
    text = " ".join(run("up", "--help").out.split())
    assert "Threads for inference; 0: one per core (default: 0)" in text


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_no_number_is_not_finite(value):
    """``nan`` is within any limits of click's."""
    for _, option in options():
        if isinstance(option.type, click.FloatRange):
            with pytest.raises(click.BadParameter):
                option.type.convert(value, option, None)
