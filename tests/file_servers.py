"""A web server of files on 127.0.0.1 that knows ranges, and breaks off where it is told to."""

import json
import threading
from urllib.parse import parse_qs, urlsplit

from sites import Handler, Site


class FileServer(Site):
    """Serves ``files``: path to bytes.

    Each number in ``cuts`` ends one answer after so many bytes of its body, not before ``held`` is
    set; ``statuses`` are given instead of answers, one per request; ``redirects`` map a path to a
    URL.  ``ranges`` off: every answer is the whole file.
    """

    def __init__(self, files=()):
        self.files = dict(files)
        self.cuts, self.statuses, self.redirects = [], [], {}
        self.ranges, self.validators, self.lengths = True, True, True
        self.held = threading.Event()
        self.held.set()
        self.requests = []
        super().__init__(self._handler())

    def __exit__(self, *error):
        self.held.set()
        super().__exit__(*error)

    def asked(self, header):
        """A header of each request, in order."""
        return [headers.get(header) for _, headers in self.requests]

    def _handler(self):
        site = self

        class Answering(Handler):
            def do_GET(self):
                path = urlsplit(self.path).path
                site.requests.append((self.path, self.headers))
                if site.statuses:
                    return self._say(site.statuses.pop(0))
                if path in site.redirects:
                    return self._say(302, {"Location": site.redirects[path]})
                if path not in site.files:
                    return self._say(404)
                return self._give(site.files[path])

            def _give(self, content):
                etag = f'"{hash(content)}"'
                start, wanted = 0, self.headers.get("Range")
                if site.ranges and wanted and self.headers.get("If-Range") == etag:
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                headers = {"Content-Length": str(len(content) - start)} if site.lengths else {}
                if site.validators:
                    headers["ETag"] = etag
                if start:
                    end = len(content)
                    headers["Content-Range"] = f"bytes {start}-{end - 1}/{end}"
                cut = site.cuts.pop(0) if site.cuts else None
                self._say(206 if start else 200, headers, content[start:][:cut])
                if cut is not None:
                    site.held.wait(60)
                return

            def _say(self, status, headers=(), body=b""):
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Answering


class FakeMlflow(FileServer):
    """An MLflow registry as 3.17 answers: a version names a run, a logged model, or a place.

    ``source``: what a version names.  ``stored``: where the run or logged model is kept.
    """

    def __init__(
        self,
        source="mlflow-artifacts:/1/models/m-1/artifacts",
        stored="mlflow-artifacts:/1/r1/artifacts",
    ):
        super().__init__()
        self.source, self.stored = source, stored

    def publish(self, name, version, path, content):
        """Have the version give the artifact, by the one route that is right for where it is."""
        api = "/api/2.0/mlflow"
        info = {"info": {"artifact_uri": self.stored}}
        answers = {
            f"{api}/model-versions/get-download-uri": {"artifact_uri": self.source},
            f"{api}/runs/get": {"run": info},
            f"{api}/logged-models/m-7": {"model": info},
        }
        self.files |= {place: json.dumps(answer).encode() for place, answer in answers.items()}
        kind, _, rest = self.source.partition(":/")
        place = self.source
        if kind in ("runs", "models"):
            place = f"{self.stored}/{rest.partition('/')[2]}".rstrip("/")
        if place.startswith("mlflow-artifacts:"):
            folder = urlsplit(place).path.strip("/")
            self.files[f"{api}-artifacts/artifacts/{folder}/{path}"] = content
        else:
            self.files["/model-versions/get-artifact"] = content

    def queries(self):
        """What was asked for, request by request."""
        return [parse_qs(urlsplit(path).query) for path, _ in self.requests]
