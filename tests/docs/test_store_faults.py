"""The table of faults in docs/store.md names codes and settings that exist."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from streamapp.core.config import Settings

ROOT = Path(__file__).parents[2]
SECTION = (ROOT / "docs" / "store.md").read_text().partition("## When something goes wrong")[2]
CODES = re.findall(r"^\|[^|]*\| `(store\.\w+)` \|", SECTION, re.MULTILINE)
SINK = "".join(path.read_text() for path in (ROOT / "streamapp" / "sink").glob("*.py"))


def test_the_table_is_there():
    assert len(CODES) == len(set(CODES)) == 9


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_raised_by_the_store(code):
    assert f'"{code}"' in SINK


@pytest.mark.parametrize("name", ["flush_rows", "db_path", "query_s_max"])
def test_each_setting_that_it_names_exists(name):
    assert f"`{name}`" in SECTION
    assert name in {field.name for field in fields(Settings)}
