"""What is written without us: sentiment by vaderSentiment, keywords by YAKE, a document at a time.

python text_theirs.py DOCUMENTS OUT
"""

import json
import sys
import time
from pathlib import Path

import yake
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


def main() -> None:
    begun = time.perf_counter()
    analyzer = SentimentIntensityAnalyzer()
    keywords = yake.KeywordExtractor(lan="en", n=3, top=10)
    documents = 0
    with Path(sys.argv[1]).open(encoding="utf-8") as lines, Path(sys.argv[2]).open("w") as out:
        for line in lines:
            row = json.loads(line)
            row["sentiment"] = analyzer.polarity_scores(row["text"])["compound"]
            row["keywords"] = keywords.extract_keywords(row["text"])
            out.write(json.dumps(row) + "\n")
            documents += 1
    seconds = time.perf_counter() - begun
    print(json.dumps({"documents": documents, "seconds": seconds}))


main()
