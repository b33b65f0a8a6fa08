"""Others' JavaScript clients, installed once by npm into a cache outside the tree."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

DECLARED = Path(__file__).parent / "npm"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "streamapp" / "npm"
FILES = ("package.json", "package-lock.json")
NODE_S_MAX = 60


@pytest.fixture(scope="session")
def npm_folder() -> Path:
    """The folder whose ``node_modules`` has them; the test is skipped where that cannot be."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("npm clients: no Node.js on this machine")
    contents = b"".join((DECLARED / name).read_bytes() for name in FILES)
    folder = CACHE / hashlib.sha256(contents).hexdigest()[:12]
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=CACHE))
    try:
        for name in FILES:
            shutil.copy(DECLARED / name, part)
        found = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", part],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        if found.returncode:
            pytest.skip(f"npm clients: npm could not install them: {found.stderr.strip()[-500:]}")
        try:
            part.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


@pytest.fixture
def node(npm_folder):
    """Run a script with arguments, while the test's own event loop turns; what it printed."""

    async def run(script: str, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "node", "-e", script, "script", *arguments,
            cwd=npm_folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(NODE_S_MAX):
                out, error = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, error.decode()
        return out.decode()

    return run
