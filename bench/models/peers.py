"""Other libraries on the same model and the same texts."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import venvs

from streamapp.models import Registry
from streamapp.models.manifest import EmbedManifest

FASTEMBED = "0.9.1"
#: Why the other well known library is not measured.
SENTENCE_TRANSFORMERS = "its torch comes from PyPI with 2 GB of CUDA libraries"
RUN_S_MAX = 900
_HERE = Path(__file__).parent


def fastembed(
    registry: Registry, name: str, texts: Sequence[str], rounds: int, folder: Path
) -> dict[str, Any]:
    """Texts a second by batch size, and how near its vectors are to ours.

    Raises:
        venvs.Unavailable: it cannot be installed.
    """
    # In our own versions, so that both call one onnxruntime.
    shared = venvs.as_here("numpy", "onnxruntime", "tokenizers")
    python = venvs.python(f"fastembed-{FASTEMBED}", f"fastembed=={FASTEMBED}", *shared)
    manifest = registry.manifest_of(EmbedManifest, name)
    _prepare(registry.folder(name), manifest, folder)
    done = subprocess.run(
        [python, str(_HERE / "fastembed_run.py"), str(folder), str(rounds)],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
        check=False,
    )
    if done.returncode:
        raise venvs.Unavailable(f"fastembed: {done.stderr.strip().splitlines()[-1][:300]}")
    said = json.loads(done.stdout)
    ours = registry.embedder(name).embed(texts[:1])[0][0]
    cosine = float(np.dot(ours, np.array(said["vector"]) / np.linalg.norm(said["vector"])))
    return {"rates": said["rates"], "cosine": cosine}


def _prepare(files: Path, manifest: EmbedManifest, folder: Path) -> None:
    """The folder that fastembed wants: Hugging Face's files beside model and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(files / manifest.model, folder / "model.onnx")
    tokenizer = json.loads((files / manifest.tokenizer).read_text())
    # The file may ask for 128 tokens whatever a text's length; that would not be fastembed's fault.
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"padding": None}))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    special |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    settings = {"model_max_length": manifest.tokens_max, **special}
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
