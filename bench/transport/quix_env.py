"""The environment of the contender Quix Streams: outside the tree, made once, versions pinned."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

QUIX = "3.28.1"
#: What our decoder needs beside it, in our own versions.
SHARED = ("msgspec", "numpy", "pyarrow")
INSTALL_S_MAX = 600


class Unavailable(Exception):
    """Why it cannot be measured here."""


def python() -> str:
    """The interpreter that has Quix Streams; installed on first use.

    Raises:
        Unavailable: pip could not install it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "bench" / f"quixstreams-{QUIX}"
    found, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return str(found)
    wanted = [f"quixstreams=={QUIX}", *(f"{name}=={version(name)}" for name in SHARED)]
    print(f"installing {wanted[0]} into {folder} (once) ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(str(found), *pip, *wanted)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        reason = said.strip().splitlines()[-1] if said.strip() else "unknown"
        raise Unavailable(f"{wanted[0]} could not be installed: {reason[:300]}") from None
    done.touch()
    return str(found)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
