"""GLiNER for tests: the tiny exports of tests/models, and a graph in Python that sees only words.

The exports have random weights; ``golden.json`` holds what the reference package made of them
(gliner 0.2.29, CC0).
"""

import json
from pathlib import Path

import msgspec
import numpy as np

from streamapp.core.model import ModelRef
from streamapp.models.entities.gliner import INPUTS, GlinerExtractor
from streamapp.models.formats.onnx import OnnxSession
from streamapp.models.manifest import EntitiesManifest
from streamapp.models.session import Tensor

FOLDER = Path(__file__).parent / "models" / "gliner"
REF = ModelRef("entities", "tiny", 1, "0" * 64)


def manifest(mode, **changes):
    plain = EntitiesManifest(
        name="tiny",
        version=1,
        about="random weights",
        licence="CC0",
        model="model.onnx",
        tokenizer="tokenizer.json",
        config="gliner_config.json",
        mode=mode,
    )
    return msgspec.structs.replace(plain, **changes)


def extractor(mode, session=None, **changes):
    """One of the tiny models, or another session called like it."""
    folder = FOLDER / mode
    session = session or OnnxSession(REF, folder / "model.onnx", threads=1)
    return GlinerExtractor(session, manifest(mode, **changes), folder)


def golden(mode):
    return json.loads((FOLDER / mode / "golden.json").read_text())


class WordSession:
    """Scores a span by its words alone, wherever they stand; remembers the shapes that it saw."""

    ref = REF
    memory_bytes = 0

    def __init__(self, mode, width=12):
        self.mode, self.width, self.shapes = mode, width, []
        self.inputs = tuple(Tensor(name, "int64", (-1, -1)) for name in INPUTS[mode])
        self.outputs = (Tensor("logits", "float32", (-1, -1, -1, -1)),)

    def run(self, feeds, outputs=None):
        ids, mask = feeds["input_ids"], feeds["words_mask"]
        self.shapes.append((*ids.shape, feeds["text_lengths"].ravel().tolist()))
        labels = int((ids[0] == 516).sum())  # <<ENT>>
        words = np.zeros((len(ids), int(feeds["text_lengths"].max())), np.int64)
        for row, numbers in enumerate(mask):
            words[row, numbers[numbers > 0] - 1] = ids[row, numbers > 0]
        last = self.width if self.mode == "span" else 3
        shape = (*words.shape, *((last, labels) if self.mode == "span" else (labels, last)))
        logits = np.empty(shape, np.float32)
        for place in np.ndindex(shape):
            row, word, *rest = place
            width = rest[0] if self.mode == "span" else 0
            seed = [*words[row, word : word + width + 1].tolist(), *rest]
            logits[place] = np.sin(1 + np.dot(seed, np.arange(3, 3 + len(seed)))) * 4
        return {"logits": logits}

    def close(self):
        pass
