"""What ``models tune`` found to be fastest: ``tuned.json`` beside a model's pulled files.

Whoever opens the model follows it.  It holds for the file it was measured on: after a pull of
another one it is ignored.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streamapp.core.errors import Refuse
from streamapp.core.model import ModelRef
from streamapp.models.formats.openvino import is_installed
from streamapp.models.session import Session
from streamapp.models.small import GARBLED, read_json

FILE = "tuned.json"
Backend = Literal["onnxruntime", "openvino"]
_Count = Annotated[int, Meta(ge=1)]


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a model.

    ``sha256`` is that of the file it was measured on, ``variant`` another file to run in its place
    ("": itself) whose sha256 is ``variant_sha256``.  ``threads`` are those of one call, ``calls``
    how many run at once; ``batch`` is rows of a call, ``wait_ms`` how long one waits to fill.
    ``measured`` is what was seen, for people.
    """

    sha256: str
    backend: Backend = "onnxruntime"
    precision: Literal["f32", "int8", "bf16"] = "f32"
    variant: str = ""
    variant_sha256: str = ""
    threads: _Count = 1
    calls: _Count = 1
    batch: _Count = 16
    wait_ms: Annotated[float, Meta(ge=0)] = 2.0
    measured: dict[str, Any] = {}


def read_tuned(folder: Path, ref: ModelRef) -> Tuned | None:
    """What was found for this model; None where nothing was, or for another file.

    Raises:
        Refuse: the file cannot be read, or names a runtime that is not installed.
    """
    path = folder / FILE
    again = f"run `streamapp models tune {ref.task}/{ref.name}@{ref.version}`, or delete it"
    try:
        found = read_json(path, Tuned)
    except FileNotFoundError:
        return None
    except (OSError, *GARBLED) as error:
        raise Refuse("models.tuned", f"{path}: {error}", again) from None
    if found.sha256 != ref.sha256:
        return None
    if found.backend == "openvino" and not is_installed():
        raise Refuse(
            "models.tuned",
            f"{path} says openvino, which is not installed",
            f"pip install 'streamapp[openvino]', or {again}",
        )
    return found


def write_tuned(folder: Path, tuned: Tuned) -> Path:
    """Put the file in place, at once."""
    part = folder / f".{FILE}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(tuned)) + b"\n")
    return part.replace(folder / FILE)


def open_file(ref: ModelRef, path: Path, tuned: Tuned, device: str = "auto") -> Session:
    """An ONNX file by the runtime that serves it best.

    A variant is another model, and its ref says so.

    Raises:
        Refuse: the file cannot be loaded, or is not the variant that was measured.
    """
    from streamapp.models.receipt import sha256_of

    if tuned.variant:
        path = path.with_name(tuned.variant)
        if not path.is_file() or sha256_of(path) != tuned.variant_sha256:
            raise Refuse(
                "models.tuned",
                f"{path} is not the file that was measured",
                f"run `streamapp models tune {ref.task}/{ref.name}@{ref.version}` again",
            )
        ref = ModelRef(ref.task, ref.name, ref.version, tuned.variant_sha256)
    if tuned.backend == "openvino":
        from streamapp.models.formats.openvino import OpenvinoSession

        return OpenvinoSession(ref, path, tuned.threads, tuned.calls, tuned.precision)
    from streamapp.models.formats.onnx import OnnxSession

    return OnnxSession(ref, path, tuned.threads, device)


def as_declared(ref: ModelRef, backend: Backend, threads: int, calls: int, batch: int) -> Tuned:
    """How to run a model that nobody tuned."""
    return Tuned(sha256=ref.sha256, backend=backend, threads=threads, calls=calls, batch=batch)
