"""What a run looks like on a terminal."""

import io

from rich.console import Console

from streamapp.cli import flow_show
from streamapp.workflow.run.events import Advance, PartEnded, PartStarted, Waiting
from streamapp.workflow.run.report import StageReport


def test_bars_have_rates_and_end_with_what_came_of_each(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr(flow_show, "console", lambda **_: console)
    with flow_show.shown_progress(quiet=False) as tell:
        tell(PartStarted("stage", "slow", 100, 2, "it has not run before", 1))
        tell(Advance("stage", "slow", 30))
        tell(Advance("stage", "slow", 30))
        tell(Waiting("slow", 1, 2.5, "away \x1b[2J"))
        tell(PartEnded("input", StageReport("known", "input", "cached", rows_out=7), 2))
        tell(PartEnded("stage", StageReport("slow", "stage", "failed", rows_in=100), 3))
    shown = screen.getvalue()
    assert "slow" in shown
    assert "100/100" in shown
    assert "cached" in shown
    assert "failed" in shown
    assert "\x1b[2J" not in shown, "a stranger's text clears no screen"


def test_without_a_terminal_there_is_a_line_for_each_part(capsys):
    with flow_show.shown_progress(quiet=False) as tell:
        tell(PartStarted("stage", "a", 100, 2, "", 1))
        tell(Waiting("a", 1, 2.5, "the other side is away"))
        done = StageReport("a", "stage", "ran", rows_in=100, rows_out=90, rejected=10, seconds=0.5)
        tell(PartEnded("stage", done, 3))
    assert capsys.readouterr().err.splitlines() == [
        "a: try 1 failed, again in 2.5 s: the other side is away",
        "a: ran, 90 rows in 0.50 s, 200 rows/s, 10 set aside",
    ]


def test_quiet_is_quiet(capsys):
    with flow_show.shown_progress(quiet=True) as tell:
        tell(PartEnded("stage", StageReport("a", "stage", "ran"), 3))
    assert capsys.readouterr() == ("", "")
