"""One thing is not several."""

import pytest

from streamapp.core.counted import counted


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (1234, "1,234 rows"), (1.0, "1 row")],
)
def test_numbers_are_written_with_their_noun(count, text):
    assert counted(count, "row") == text
