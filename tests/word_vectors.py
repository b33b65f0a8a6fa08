"""An embedder that is a Python function, in a repository of its own: bags of hashed words."""

from pathlib import Path

import numpy as np

from streamapp.plugin.testing import HashEmbedder

DIM = 32
MANIFEST = f"""\
task = "embed"
name = "words"
version = 1
about = "bags of hashed words"
licence = "MIT"
format = "function"
function = "word_vectors:embed"
dim = {DIM}
batch_invariant = true
[inputs]
texts = "string[n]"
[outputs]
vectors = "float32[n,{DIM}]"
"""


def embed(texts):
    return {"vectors": HashEmbedder(DIM).embed(list(texts))[0]}


def repository(folder: Path) -> Path:
    """Write a models folder whose default embedder this is."""
    manifest = folder / "embed/words/1/manifest.toml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(MANIFEST)
    (folder / "routes.toml").write_text('[defaults]\nembed = "embed/words"\n')
    return folder


def feelings(texts):
    """How often each text says "bad" and "good"."""
    counts = [[text.count("bad"), text.count("good")] for text in texts]
    return {"logits": np.array(counts, np.float32).reshape(-1, 2)}
