"""What docs/transports.md shows runs, and what it says is what the code has."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from transport_differences import ASSERTED, BY_CHANCE

from streamapp.transport import Options

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "transports.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def rows(heading):
    """First cells of the table below a line that begins so."""
    table = PAGE[PAGE.index(f"\n| {heading}") :].split("\n\n", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_the_differences_are_those_that_the_contract_names():
    assert sorted(rows("name |")) == sorted(ASSERTED | BY_CHANCE)
    contract = "".join(path.read_text() for path in (TESTS / "contract").glob("test_*.py"))
    assert [name for name in ASSERTED if f'"{name}"' not in contract] == []


def test_the_options_are_all_there_are():
    assert sorted(rows("option of")) == sorted(field.name for field in fields(Options))


@pytest.mark.parametrize("scheme", ["local", "kafka+batch"])
async def test_the_snippets(scheme, request, tmp_path, run):
    url = f"local://{tmp_path}/log"
    if scheme != "local":
        url = request.getfixturevalue("kafka").url
    app, clients = BLOCKS
    (tmp_path / "shop.py").write_text(app)
    client = run("-c", clients, BROKER=url)
    assert await client.ended() == 0, client.text()
    assert "[b'250', b'199']" in client.text()
    worker = run("-m", "faust", "-A", "shop", "worker", "-l", "info", "--without-web", BROKER=url)
    await worker.until(lambda w: "2 orders, 449 cents" in w.text(), "two orders")
    assert await worker.terminate() == 0
