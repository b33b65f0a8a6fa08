"""The same with us: a workflow of one stage, file to file, on all cores.

python text_ours.py DOCUMENTS OUT
"""

import json
import os
import sys
import time
from pathlib import Path

from streamapp.workflow.graph.load import graph_of
from streamapp.workflow.run.engine import Services, run


def main() -> None:
    begun = time.perf_counter()
    documents, out = Path(sys.argv[1]), Path(sys.argv[2])
    declared = {
        "name": "reviews",
        "inputs": {"documents": {"type": "file", "path": documents.name}},
        "stages": [
            {
                "name": "analysis",
                "service": "text",
                "operation": "analyze",
                "config": {
                    "analyze_sentiment": True,
                    "extract_keywords": True,
                    "keyword_words_max": 3,
                    "count_words": False,
                    "measure_readability": False,
                },
            }
        ],
        "outputs": {"analyzed": {"source": "analysis", "format": "jsonl"}},
    }
    # Each run has a cache of its own: nothing is taken from the run before.
    services = Services(cache=out.with_name(f"cache-{os.getpid()}"))
    report = run(graph_of(declared, documents.parent), folder_out=out, services=services)
    if report.error is not None:
        raise SystemExit(str(report.error.error()))
    seconds = time.perf_counter() - begun
    print(json.dumps({"documents": report.outputs[0].rows, "seconds": seconds}))


if __name__ == "__main__":
    main()
