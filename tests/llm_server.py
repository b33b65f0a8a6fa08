"""Language models for tests: one of ours that misbehaves as it is told, and llama.cpp's own server.

Ours answers by looking at the schema that it was sent and at words of the message; what it does
instead is taken from a script, answer by answer.
"""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def content_of(schema, message):
    """An answer that the schema takes: the label that is a word of the message, and ``slot=value``."""
    return json.dumps(
        {name: _value(name, kind, message) for name, kind in schema["properties"].items()}
    )


def _value(name, kind, message):
    if name == "confidence":
        return 70
    if "enum" in kind:
        return next((one for one in kind["enum"] if one in message), kind["enum"][-1])
    if "pattern" in kind:
        return "OrderPlaced"
    if kind["type"] == "object":
        return {slot: _slot(slot, message) for slot in kind["properties"]}
    return "Anything else?"


def _slot(name, message):
    found = next((word for word in message.split() if word.startswith(f"{name}=")), None)
    if found is None:
        return None
    text = found.partition("=")[2]
    return int(text) if text.isdecimal() else text


def completion(message, finish="stop", model="tests"):
    return {
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 3},
    }


class LlmServer:
    """An OpenAI-compatible server in threads.

    ``script``: what to do instead, call by call: a status, ``(status, headers, body)``, a dict (the
    message), bytes (the body of a 200), a callable of the request's body, or one of ``hang``,
    ``cut`` (half of a body, then the connection ends) and ``reset``.  ``always`` is done when the
    script is over; None: answer well.  ``modes``: which ways to JSON it has.
    """

    def __init__(self, modes=("json_schema", "json_object", "tool", "prompt")):
        self.modes = set(modes)
        self.script = []
        self.always = None
        self.calls = []
        self.messages = Counter()
        self.headers = []
        self.busy = self.busy_max = 0
        self.answer_s = 0.0
        self.let = threading.Event()
        self._lock = threading.Lock()
        self._server = None
        self._open = set()
        self.port = 0

    def start(self):
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                owner._open.add(self.connection)

            def finish(self):
                owner._open.discard(self.connection)
                with contextlib.suppress(OSError):
                    super().finish()

            def do_GET(self):
                self.reply(200, {"data": [{"id": "tests"}]})

            def do_POST(self):
                with owner._lock:
                    owner.busy += 1
                    owner.busy_max = max(owner.busy, owner.busy_max)
                try:
                    owner.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with owner._lock:
                        owner.busy -= 1

            def reply(self, status, body, headers=()):
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in dict(headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # a client that went away

        self.let.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def stop(self):
        self.let.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):  # those that are kept alive
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, handler):
        raw = handler.rfile.read(int(handler.headers["Content-Length"]))
        body = json.loads(raw)
        with self._lock:
            self.calls.append(body)
            self.headers.append(dict(handler.headers))
            self.messages[body["messages"][1]["content"]] += 1
            act = self.script.pop(0) if self.script else self.always
        if self.answer_s:
            time.sleep(self.answer_s)
        if callable(act):
            act = act(body)
        if act is None:
            act = self.well(body)
        if act == "hang":
            self.let.wait(60)
            act = 503
        if act == "reset":
            handler.close_connection = True
            handler.connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )
            handler.connection.close()
        elif act == "cut":
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b'{"choices": [{"message": {"content": "{\\"intent\\":')
            handler.close_connection = True
        elif isinstance(act, int):
            handler.reply(act, {"error": {"message": f"status {act}"}})
        elif isinstance(act, tuple):
            status, headers, said = act
            handler.reply(status, said, headers)
        elif isinstance(act, bytes):
            handler.reply(200, act)
        else:
            handler.reply(200, act if "choices" in act else completion(act))

    def well(self, body):
        """A good answer, in the way that was asked for; 400 for one that this server has not."""
        mode, schema = mode_of(body)
        if mode not in self.modes:
            return 400, {}, {"error": {"message": f"{mode} is not supported", "type": "invalid"}}
        answer = content_of(schema, body["messages"][1]["content"])
        if mode == "tool":
            name = body["tool_choice"]["function"]["name"]
            call = {"id": "1", "type": "function", "function": {"name": name, "arguments": answer}}
            return {"role": "assistant", "content": None, "tool_calls": [call]}
        return {"role": "assistant", "content": answer}


def mode_of(body):
    """How a call asks for JSON, and by which schema."""
    asked = body.get("response_format", {}).get("type")
    if asked == "json_schema":
        return asked, body["response_format"]["json_schema"]["schema"]
    if "tools" in body:
        return "tool", body["tools"][0]["function"]["parameters"]
    system = body["messages"][0]["content"]
    return asked or "prompt", json.loads(system.rpartition("\n")[2])


def tiny_gguf(path):
    """Random weights of a llama with a vocabulary of bytes and letters, half a megabyte."""
    import gguf
    import numpy as np

    dim, hidden, heads, layers = 64, 128, 4, 2
    random = np.random.default_rng(0)
    tokens = [b"<unk>", b"<s>", b"</s>", *(f"<0x{n:02X}>".encode() for n in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
    kinds += [gguf.TokenType.BYTE] * 256
    for n in range(32, 127):
        tokens.append("▁".encode() if n == 32 else bytes([n]))
        kinds.append(gguf.TokenType.NORMAL)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_context_length, 4096),
        (writer.add_embedding_length, dim),
        (writer.add_block_count, layers),
        (writer.add_feed_forward_length, hidden),
        (writer.add_head_count, heads),
        (writer.add_head_count_kv, heads),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_rope_dimension_count, dim // heads),
        (writer.add_vocab_size, len(tokens)),
        (writer.add_tokenizer_model, "llama"),
        (writer.add_token_list, tokens),
        (writer.add_token_scores, [-float(n) for n in range(len(tokens))]),
        (writer.add_token_types, kinds),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, 2),
        (writer.add_unk_token_id, 0),
        (writer.add_add_bos_token, True),
    ):
        add(value)
    writer.add_chat_template(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    )

    def weights(*shape):
        return (random.standard_normal(shape) * 0.2).astype(np.float32)

    ones = np.ones(dim, np.float32)
    tensors = {"token_embd": weights(len(tokens), dim), "output_norm": ones}
    tensors["output"] = weights(len(tokens), dim)
    for n in range(layers):
        tensors |= {f"blk.{n}.{name}": ones for name in ("attn_norm", "ffn_norm")}
        tensors |= {f"blk.{n}.attn_{name}": weights(dim, dim) for name in ("q", "k", "v", "output")}
        tensors |= {
            f"blk.{n}.ffn_gate": weights(hidden, dim),
            f"blk.{n}.ffn_up": weights(hidden, dim),
            f"blk.{n}.ffn_down": weights(dim, hidden),
        }
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llama(path):
    """llama.cpp's server on these weights, which runs while somebody keeps it; and its URL."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 4096
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    parameters.port = 0
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    return server, f"{server.listening_address}/v1"
