"""The live summary fits the terminal that it is shown in."""

from io import StringIO

from rich.console import Console

from streamapp.core.config import Settings
from streamapp.screen.summary import Numbers, render


def test_a_narrow_terminal_s_lines_stay_indented(tmp_path):
    numbers = Numbers(0.0)
    console = Console(width=40, record=True, file=StringIO())
    console.print(render({}, numbers, numbers, Settings(home=tmp_path), columns=40))
    lines = console.export_text().rstrip().splitlines()
    assert any("Ctrl-C" in line for line in lines)
    assert all(line.startswith("  ") for line in lines[2:] if line), lines
