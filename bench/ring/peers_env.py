"""The environment of iceoryx2 and zmq: outside the tree, made once, versions pinned."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PINNED = {"iceoryx2": "0.10.0", "pyzmq": "27.3.0"}
#: What our own side needs there, in our own versions.
SHARED = ("numpy", "python-dotenv")
INSTALL_S_MAX = 600


class Unavailable(Exception):
    """Why they cannot be measured here."""


def python() -> str:
    """An interpreter that has both, and what we need; installed on first use.

    Raises:
        Unavailable: pip could not install them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    name = "-".join(f"{package}-{number}" for package, number in PINNED.items())
    folder = cache / "streamapp" / "bench" / name
    found, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return str(found)
    wanted = [f"{package}=={number}" for package, number in PINNED.items()]
    wanted += [f"{package}=={version(package)}" for package in SHARED]
    print(f"installing {', '.join(wanted)} into {folder} (once) ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(str(found), *pip, *wanted)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        reason = said.strip().splitlines()[-1] if said.strip() else "unknown"
        raise Unavailable(f"pip could not install {wanted[0]}: {reason[:300]}") from None
    done.touch()
    return str(found)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
