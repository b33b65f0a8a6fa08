"""What is written without us: sentiment by vaderSentiment, keywords by YAKE, on all cores.

python text_theirs.py DOCUMENTS OUT
"""

import json
import os
import sys
import time
from multiprocessing import Pool
from pathlib import Path

import yake
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

#: Documents that a process is handed at once.
CHUNK = 16
ANALYZER = SentimentIntensityAnalyzer()
KEYWORDS = yake.KeywordExtractor(lan="en", n=3, top=10)


def main() -> None:
    begun = time.perf_counter()
    documents = 0
    with (
        Path(sys.argv[1]).open(encoding="utf-8") as lines,
        Path(sys.argv[2]).open("w", encoding="utf-8") as out,
        Pool(len(os.sched_getaffinity(0))) as pool,
    ):
        for row in pool.imap(analyzed, lines, CHUNK):
            out.write(row)
            documents += 1
    seconds = time.perf_counter() - begun
    print(json.dumps({"documents": documents, "seconds": seconds}))


def analyzed(line: str) -> str:
    """A document's line with what was found out."""
    row = json.loads(line)
    row["sentiment"] = ANALYZER.polarity_scores(row["text"])["compound"]
    row["keywords"] = KEYWORDS.extract_keywords(row["text"])
    return json.dumps(row) + "\n"


if __name__ == "__main__":
    main()
