"""The live summary fits the terminal that it is shown in."""

from io import StringIO

import pytest
from rich.console import Console, ConsoleDimensions

from streamapp.core.config import Settings
from streamapp.screen.summary import Numbers, render
from streamapp.screen.supervisor import Child

FOUR = ("gateway", "worker", "store", "terminal")
SIX = (*FOUR, "export", "ask")


def shown(settings, names, width, height):
    """The lines that a terminal of this size would get."""
    numbers = Numbers(60.0, ready=dict.fromkeys(names, True))
    children = {name: Child(name, (), {}, pid=4_000_000) for name in names}
    screen = Console(width=width, record=True, file=StringIO())
    size = ConsoleDimensions(width, height)
    screen.print(render(children, numbers, numbers, settings, size))
    return screen.export_text().rstrip().splitlines()


def test_a_narrow_terminal_s_lines_stay_indented(tmp_path):
    lines = shown(Settings(home=tmp_path), (), 40, 24)
    assert any("Ctrl-C" in line for line in lines)
    assert all(line.startswith("  ") for line in lines[2:] if line), lines


@pytest.mark.parametrize("names", [FOUR, SIX])
@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (80, 12), (40, 14), (40, 9)])
def test_nothing_is_cut_off_below(tmp_path, names, width, height):
    lines = shown(Settings(home=tmp_path), names, width, height)
    assert len(lines) < height
    assert lines[-1].endswith("cleanly")
    assert [
        line.split()[0] for line in lines if line.split()[:1] in [[name] for name in names]
    ] == [*names]


def test_a_large_terminal_gets_it_all(tmp_path):
    text = "\n".join(shown(Settings(home=tmp_path), FOUR, 120, 40))
    for part in ("pid", "restarts", "/ingest", "grpc://", "ring  ", "numbers count"):
        assert part in text


def test_a_small_one_keeps_what_the_processes_do(tmp_path):
    lines = shown(Settings(home=tmp_path), FOUR, 40, 14)
    assert "0/s in" in "\n".join(lines)
    assert "pid" not in lines[0]
