"""Where an artifact of a model version of an MLflow registry is, by its tracking server's REST API.

https://mlflow.org/docs/latest/api_reference/rest-api.html.  A version names a run or a logged model
whose artifacts it is, and these name a place: one with the scheme ``mlflow-artifacts`` the server
hands out itself; for any other (S3, a disk) there is the route that the server's own pages use.
Tried with MLflow 3.17.
"""

from typing import TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from streamapp.models.download import SourceError, open_url, read

_API = "/api/2.0/mlflow"
_ANSWER_BYTES_MAX = 1 << 20
_HOPS_MAX = 3
Answer = TypeVar("Answer")


class _Version(msgspec.Struct, frozen=True):
    artifact_uri: str


class _Holder(msgspec.Struct, frozen=True):
    info: _Version


class _Run(msgspec.Struct, frozen=True):
    run: _Holder


class _Logged(msgspec.Struct, frozen=True):
    model: _Holder


def artifact_url(base: str, token: str, name: str, version: str, path: str) -> str:
    """The web address of ``path`` of a model version.

    Raises:
        SourceError: the server knows no such version, or is no MLflow.
        OSError: it does not answer.
    """
    base = base.rstrip("/")
    query = urlencode({"name": name, "version": version})
    asked = f"{base}{_API}/model-versions/get-download-uri?{query}"
    uri = _ask(asked, token, _Version).artifact_uri
    for _ in range(_HOPS_MAX):
        parts = urlsplit(uri)
        first, _, rest = parts.path.lstrip("/").partition("/")
        if parts.scheme == "mlflow-artifacts":
            folder = quote(parts.path.strip("/"))
            return f"{base}{_API}-artifacts/artifacts/{folder}/{quote(path)}"
        if parts.scheme == "runs":
            asked = f"{base}{_API}/runs/get?{urlencode({'run_id': first})}"
            uri = _ask(asked, token, _Run).run.info.artifact_uri
        elif parts.scheme == "models" and first.startswith("m-"):
            asked = f"{base}{_API}/logged-models/{quote(first)}"
            uri = _ask(asked, token, _Logged).model.info.artifact_uri
        else:
            break
        uri = f"{uri.rstrip('/')}/{rest}" if rest else uri
    return f"{base}/model-versions/get-artifact?{query}&{urlencode({'path': path})}"


def _ask(url: str, token: str, kind: type[Answer]) -> Answer:
    try:
        with open_url(url, token=token) as stream:
            return msgspec.json.decode(read(stream, _ANSWER_BYTES_MAX), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"{url} is no MLflow: {error}") from None
