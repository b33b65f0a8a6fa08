"""The first example of a workflow, in a folder that has what it names."""

import os
import sqlite3

from classifier_files import Classifiers

WORKFLOW = """\
# workflow.yaml
name: text-processing-pipeline
version: "1.0"

inputs:
  documents:
    type: file
    pattern: "*.txt"
    
stages:
  - name: nlp-analysis
    service: gospel
    operation: analyze
    config:
      extract_keywords: true
      analyze_sentiment: true
      
  - name: data-enrichment
    service: combine
    operation: integrate
    depends_on: nlp-analysis
    config:
      secondary_sources:
        - metadata-db
      mode: left_join
      key_fields:
        - document_id
        
  - name: model-inference
    service: model-router
    operation: infer
    depends_on: data-enrichment
    config:
      model: text-classifier-v2
      threshold: 0.75
      
outputs:
  classifications:
    source: model-inference
    format: json
"""  # noqa: W293  # as it was published
PROJECT = """\
[sources.metadata-db]
path = "metadata.sqlite"
table = "documents"

[models.text-classifier-v2]
model = "classify/reviews@2"
"""


def make(folder, documents):
    """The folder, its documents, its database and its model; the settings to run it with."""
    place = folder / "project"
    place.mkdir()
    (place / "workflow.yaml").write_text(WORKFLOW)
    (place / "streamapp.toml").write_text(PROJECT)
    for number in range(documents):
        mood = ("good", "bad", "great", "terrible")[number % 4]
        path = place / f"doc{number:03}.txt"
        path.write_text(f"Report {number} is a {mood} document. Its content is {mood} indeed.\n")
        os.utime(path, (1, 1))
    with sqlite3.connect(place / "metadata.sqlite") as database:
        database.execute("create table documents (document_id text, author text, year integer)")
        rows = [(f"doc{n:03}", f"author {n % 3}", 2000 + n) for n in range(0, documents, 2)]
        database.executemany("insert into documents values (?, ?, ?)", rows)
    database.close()
    models = Classifiers(folder / "weights").add("reviews", 2, says="bad")
    return place, {
        "STREAMAPP_HOME": str(folder / "home"),
        "STREAMAPP_MODELS_DIR": str(models.models_dir),
        "STREAMAPP_MODELS_CACHE": str(models.cache),
    }
