"""Model servers on 127.0.0.1 that do as they are told: answer, refuse, hang, or break off."""

import contextlib
import itertools
import json
import threading

import msgspec
import numpy as np
from sites import Handler, Site
from tiny_models import affine

from streamapp.models.formats import v2


def vector_of(text, dim=4):
    """A text's vector, the same everywhere."""
    numbers = np.frombuffer((text.encode() + b"\1" * dim)[:dim], np.uint8)
    return numbers.astype(np.float32)


class ModelServer(Site):
    """Open Inference Protocol v2 with one affine model, and OpenAI's embeddings.

    ``binary``: whether it takes and gives binary tensors.  What is appended to ``ill`` is done
    instead of an answer, one per request: ``(status, headers, body)``, or ``"drop"``, ``"hang"``,
    ``"half"``, or bytes that are sent one by one, again and again.
    """

    def __init__(self, *, binary=True):
        self.binary = binary
        self.ill = []
        self.requests = []
        self.tokens = []
        self.connections = 0
        self.released = threading.Event()
        super().__init__(self._handler())

    def __exit__(self, *error):
        self.released.set()
        super().__exit__(*error)

    def answer(self, method, path, headers, body):
        """Status, headers, body."""
        if path == "/v2":
            extensions = [v2.EXTENSION] if self.binary else []
            return 200, {}, json.dumps({"name": "tiny", "extensions": extensions}).encode()
        if path == "/v2/models/affine":
            return 200, {}, json.dumps(METADATA).encode()
        if path == "/v2/models/affine/infer":
            return self._infer(headers, body)
        if path == "/v1/embeddings":
            texts = json.loads(body)["input"]
            data = [
                {"index": place, "embedding": vector_of(text).tolist()}
                for place, text in enumerate(texts)
            ]
            return 200, {}, json.dumps({"data": data[::-1]}).encode()
        return 404, {}, b'{"error": "no such model"}'

    def _infer(self, headers, body):
        text, blob = v2.split(body, headers.get(v2.JSON_LENGTH))
        request = json.loads(bytes(text))
        entries = [msgspec.convert(entry, v2.Entry) for entry in request["inputs"]]
        assert (v2.SIZE in entries[0].parameters) == self.binary
        found = affine(v2.decode(entries, blob)["x"])
        wanted = {output["name"]: found[output["name"]] for output in request["outputs"]}
        outputs, blob = v2.encode(wanted, binary=self.binary)
        content = json.dumps({"model_name": "affine", "outputs": outputs}).encode()
        return 200, {v2.JSON_LENGTH: str(len(content))} if blob else {}, content + blob

    def _handler(self):
        model = self

        class Answering(Handler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                model.connections += 1
                super().setup()

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                model.requests.append((self.command, self.path))
                model.tokens.append(self.headers.get("Authorization"))
                how = model.ill.pop(0) if model.ill else None
                if how == "drop":
                    self.close_connection = True
                elif how == "hang":
                    model.released.wait(20)
                    self.close_connection = True
                elif how == "half":
                    self._send(200, {"Content-Length": "1000"}, b'{"outputs"')
                    self.close_connection = True
                elif isinstance(how, bytes):
                    self._drip(how)
                else:
                    answer = how or model.answer(self.command, self.path, self.headers, body)
                    self._send(*answer)

            do_GET = do_POST  # noqa: N815

            def _drip(self, content):
                """The first line at once, the rest byte by byte for as long as anybody reads."""
                first, _, rest = content.partition(b"\n")
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.wfile.write(first + b"\n")
                    for byte in itertools.cycle(rest):
                        self.wfile.write(bytes([byte]))
                        if model.released.wait(0.02):
                            return

            def _send(self, status, headers, body):
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        return Answering


METADATA = {
    "name": "affine",
    "versions": ["1"],
    "platform": "tiny",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "total", "datatype": "FP32", "shape": [-1]},
    ],
}
