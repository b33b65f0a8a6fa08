"""What an editor is given and what is taken back; `dlq edit` as a whole is in test_dlq_edit.py."""

from pathlib import Path

import pytest

from streamapp.cli.editing import Editing

BREAKS = "\u2028\u2029\u0085"


@pytest.fixture
def edit(monkeypatch):
    def edit(value, about, change):
        def saved(filename):
            path = Path(filename)
            path.write_text(change(path.read_text()))

        monkeypatch.setattr("click.edit", saved)
        with Editing() as editing:
            return editing.run(value, about, lambda found: found)

    return edit


def test_what_only_some_take_for_an_end_of_line_stays_in_the_value(edit):
    value = f'{{"message":"one{BREAKS}two"}}'
    found = edit(value.encode(), ["about"], lambda text: text.replace("one", "1"))
    assert found.decode() == value.replace("one", "1")


@pytest.mark.parametrize("about", [["a reason\nof two lines", ""], ["#", "\n"]])
def test_a_reason_of_several_lines_is_no_part_of_the_value(edit, about):
    assert edit(b'{"n":1}', about, lambda text: text.replace("1", "2")) == b'{"n":2}'
