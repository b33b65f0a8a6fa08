"""``/v2/models/infer`` of the gateway beside a plain aiohttp and onnxruntime service."""

import hashlib
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from gateway import servers, wrk
from models.calls import LAYERS, write_model
from report import interleaved

from streamapp.models import Registry

CONNECTIONS = 64
BODIES = 32
_PATH = "/v2/models/tensor%2Flayers/infer"
_HEADERS = {"Content-Type": "application/json"}
_RESIDENT = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)

Figures = dict[str, float]


def load(folder: Path, seconds: float, rounds: int) -> dict[str, list[Figures]]:
    """Requests a second, p50, p95, p99 in ms, CPU us per request, and resident MB, by server.

    Raises:
        wrk.Unavailable: there is no load generator.
        servers.Failed: a server did not begin.
    """
    wrk.program()
    model = _repository(folder)
    bodies = _bodies()

    def ask(server: servers.Server) -> Figures:
        found = wrk.answers(
            server.url, _PATH, _HEADERS, bodies,
            seconds=seconds, pid=server.pid, connections=CONNECTIONS,
        )  # fmt: skip
        return {**found, "resident_mb": resident_mb(server.pid)}

    with ExitStack() as stack:
        ours = stack.enter_context(servers.gateway(f"local://{folder / 'log'}", folder))
        command = [sys.executable, "-P", "-m", "models.plain_server", str(model)]
        plain = stack.enter_context(servers.process(command))
        subjects: dict[str, Callable[[], Figures]] = {
            "gateway": partial(ask, ours),
            "plain": partial(ask, plain),
        }
        return interleaved(subjects, rounds)


def resident_mb(pid: int) -> float:
    found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def _bodies() -> list[bytes]:
    """One row each, flat, as Triton's clients write JSON."""
    rows = np.random.default_rng(3).standard_normal((BODIES, LAYERS[0])).astype(np.float32)
    return [
        msgspec.json.encode(
            {
                "inputs": [
                    {
                        "name": "vector",
                        "datatype": "FP32",
                        "shape": [1, LAYERS[0]],
                        "data": row.round(4).tolist(),
                    }
                ]
            }
        )
        for row in rows
    ]


def _repository(home: Path) -> Path:
    """A project with one model, pulled, that the gateway started there serves."""
    place = home / "models" / "tensor" / "layers" / "1"
    place.mkdir(parents=True)
    model = write_model(place / "model.onnx", 0)
    content = model.read_bytes()
    (place / "manifest.toml").write_text(
        'task = "tensor"\nname = "layers"\nversion = 1\nabout = "random weights"\n'
        f'licence = "MIT"\nmodel = "model.onnx"\n[inputs]\nvector = "float32[n,{LAYERS[0]}]"\n'
        f'[outputs]\nshares = "float32[n,{LAYERS[-1]}]"\n[[files]]\nname = "model.onnx"\n'
        f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nbytes = {len(content)}\n'
        'sources = ["file:./model.onnx"]\n'
    )
    (home / "streamapp.toml").write_text(
        f'models_dir = "{home / "models"}"\nmodels_cache = "{home / "cache"}"\n'
    )
    Registry(home / "models", home / "cache").pull("tensor/layers")
    return model
