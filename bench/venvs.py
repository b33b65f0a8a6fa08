"""Environments of programs that we are compared with: outside the tree, made once, pinned."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

INSTALL_S_MAX = 900


class Unavailable(Exception):
    """Why it cannot be measured here."""


def as_here(*names: str) -> list[str]:
    """Packages in our own versions, as pip takes them."""
    return [f"{name}=={version(name)}" for name in names]


def python(name: str, *wanted: str) -> str:
    """An interpreter that has these packages and what they need; installed on first use.

    Args:
        name: of the environment; another one for other versions.
        wanted: as pip takes them, with their versions.

    Raises:
        Unavailable: pip could not install them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "bench" / name
    found, done = folder / "bin" / "python", folder / "installed"
    if done.exists() and done.read_text() == " ".join(wanted):
        return str(found)
    print(f"installing {', '.join(wanted)} into {folder} (once) ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(found), "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines() or ["unknown"]
        raise Unavailable(f"pip could not install {wanted[0]}: {said[-1][:300]}") from None
    done.write_text(" ".join(wanted))
    return str(found)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
