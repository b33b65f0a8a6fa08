"""The environment of Karapace, whose REST proxy is a contender: outside the tree, made once."""

import os
import subprocess
import sys
from pathlib import Path

NAME = "karapace"
INSTALL_S_MAX = 600


class Unavailable(Exception):
    """Why it cannot be measured here."""


def program() -> Path:
    """The command ``karapace``; installed from PyPI on first use.

    ``BENCH_KARAPACE`` names one that is there already.

    Raises:
        Unavailable: pip could not install it.
    """
    if named := os.environ.get("BENCH_KARAPACE"):
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "bench" / NAME
    found, done = folder / "bin" / "karapace", folder / "installed"
    if done.exists():
        return found
    print(f"installing {NAME} into {folder} (once) ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", NAME)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        reason = said.strip().splitlines()[-1] if said.strip() else "unknown"
        raise Unavailable(f"{NAME} could not be installed: {reason[:300]}") from None
    done.touch()
    return found


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
