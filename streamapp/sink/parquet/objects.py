"""A Parquet store in an object store, through fsspec and a driver for the URL's scheme.

Where it is and who we are is the driver's business: for S3 ``AWS_ENDPOINT_URL``, ``AWS_REGION``,
``AWS_ACCESS_KEY_ID`` and the others, or an instance's role.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from streamapp.core import clock
from streamapp.core.errors import Refuse

#: What obstore knows; other schemes are fsspec's.
_CLOUDS = frozenset({"s3", "gs", "az"})


class Objects:
    """An object store.  Several writers are safe here: of two commits of one number one fails."""

    alone = False

    def __init__(self, url: str) -> None:
        if "@" in url.partition("://")[2].partition("/")[0]:
            raise Refuse(
                "store.userinfo",
                "the URL of the Parquet store names a user, and URLs are shown",
                "give its driver the credentials (s3: AWS_ACCESS_KEY_ID and the others)",
            )
        self.url = url.rstrip("/")
        self._files, self.base = _driver(self.url)
        self.filesystem = fs.PyFileSystem(fs.FSSpecHandler(self._files))

    def lock(self) -> None:
        """Nothing: the manifest is what keeps writers apart."""

    def unlock(self) -> None:
        """Nothing."""

    def names(self, folder: str) -> list[str]:
        with _as_os_error(), contextlib.suppress(FileNotFoundError):
            found = self._files.ls(self._at(folder), detail=False, refresh=True)
            return [path.rstrip("/").rpartition("/")[2] for path in found]
        return []

    def walk(self, folder: str) -> Iterator[str]:
        with _as_os_error():
            found = self._files.find(self._at(folder))
        for path in found:
            yield path[len(self.base) :].lstrip("/")

    def read(self, path: str) -> bytes:
        with _as_os_error():
            return bytes(self._files.cat_file(self._at(path)))

    def put(self, path: str, data: memoryview) -> None:
        with _as_os_error():
            self._files.pipe_file(self._at(path), bytes(data))

    def create(self, path: str, data: memoryview) -> None:
        with _as_os_error():
            self._files.pipe_file(self._at(path), bytes(data), mode="create")

    def remove(self, path: str) -> None:
        with _as_os_error(), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._at(path))

    def age_s(self, path: str) -> float:
        with _as_os_error():
            written = self._files.modified(self._at(path))
        return clock.now_us() / 1e6 - float(written.timestamp())

    def _at(self, path: str) -> str:
        return f"{self.base}/{path}" if path else self.base


def _driver(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the root's path in it."""
    scheme, _, rest = url.partition("://")
    try:
        if scheme in _CLOUDS:
            from streamapp.sink.parquet.clouds import driver

            return driver(scheme), rest.rstrip("/")
        from fsspec.core import url_to_fs

        _ = urlsplit(url).port  # raises here, not where the driver is first asked
        files, base = url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        fix = "pip install 'streamapp[objects]'" if scheme in _CLOUDS else f"install it: {error}"
        raise Refuse("store.driver", f"{url} needs a driver for {scheme}://", fix) from None
    except ValueError as error:
        fix = "give a path, s3://bucket/path, gs://, az:// or another fsspec URL"
        raise Refuse("store.driver", f"{url}: {error}", fix) from None
    return files, str(base).rstrip("/")


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Drivers let errors of their HTTP client through; to us all of them are the outside."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise OSError(text or type(error).__name__) from error
