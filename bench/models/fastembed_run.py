"""fastembed on the same ONNX file; runs in an environment of its own (``venvs``).

python fastembed_run.py FOLDER ROUNDS < texts.json

Says texts a second of each round as JSON, and its first vector.
"""

import json
import sys
import time

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

NAME = "bench/minilm"
BATCH = 256  # fastembed's own default


def main() -> None:
    folder, rounds = sys.argv[1], int(sys.argv[2])
    texts = json.load(sys.stdin)
    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=NAME),
        dim=384,
        model_file="model.onnx",
    )
    model = TextEmbedding(NAME, specific_model_path=folder)
    rates = {}
    for batch in (BATCH, 16):
        rates[str(batch)] = []
        for number in range(rounds + 1):
            start_s = time.perf_counter()
            vectors = list(model.embed(texts, batch_size=batch))
            if number:
                rates[str(batch)].append(len(texts) / (time.perf_counter() - start_s))
    json.dump({"rates": rates, "vector": vectors[0].tolist()}, sys.stdout)


if __name__ == "__main__":
    main()
