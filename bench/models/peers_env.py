"""The environment of fastembed: outside the tree, made once, its version pinned."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

FASTEMBED = "0.9.1"
#: In our own versions, so that both call one onnxruntime.
SHARED = ("numpy", "onnxruntime", "tokenizers")
INSTALL_S_MAX = 600
#: Why the other well known library is not measured.
SENTENCE_TRANSFORMERS = "its torch comes from PyPI with 2 GB of CUDA libraries"


class Unavailable(Exception):
    """Why it cannot be measured here."""


def python() -> str:
    """An interpreter that has fastembed; installed on first use.

    Raises:
        Unavailable: pip could not install it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = cache / "streamapp" / "bench" / f"fastembed-{FASTEMBED}"
    found, done = folder / "bin" / "python", folder / "installed"
    if done.exists():
        return str(found)
    wanted = [f"fastembed=={FASTEMBED}", *(f"{name}=={version(name)}" for name in SHARED)]
    print(f"installing {', '.join(wanted)} into {folder} (once) ...", file=sys.stderr)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _run(str(found), *pip, *wanted)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines() or ["unknown"]
        raise Unavailable(f"pip could not install {wanted[0]}: {said[-1][:300]}") from None
    done.touch()
    return str(found)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_S_MAX)
