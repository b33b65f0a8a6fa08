"""What ``make check`` runs, run here too, so that no green build has an unclean house."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
COMMANDS = {
    "ruff check": [BIN / "ruff", "check", "."],
    "ruff format": [BIN / "ruff", "format", "--check", "."],
    "mypy": [BIN / "mypy"],
    "floors": [BIN / "lint-imports", "--no-cache"],
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", COMMANDS)
def test_clean(root, name):
    env = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1"}  # the child's
    done = subprocess.run(
        COMMANDS[name], check=False, cwd=root, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
