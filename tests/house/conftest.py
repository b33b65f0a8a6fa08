from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("streamapp", "tests", "bench", "examples")


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def sources() -> list[Path]:
    """Every source file of ours: Python and C."""
    return [
        path
        for folder in SOURCES
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".py", ".pyi", ".c", ".h"} and "_defaults" not in path.parts
    ]
