"""The example workflow in a folder that has what it names: texts, a database, a model."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from classifier_files import Classifiers

#: As it was published, letter for letter.
EXAMPLE = """# workflow.yaml
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
"""  # noqa: W293  # letter for letter
PROJECT = """
[sources.metadata-db]
path = "metadata.db"
table = "documents"

[models.text-classifier-v2]
model = "classify/text-classifier"
"""
_MOODS = ("good", "bad", "great", "terrible")
_WORDS = ("the", "delivery", "came", "late", "and", "nobody", "answered", "service", "again")


def example_folder(folder: Path, documents: int, *, text: str = EXAMPLE) -> dict[str, str]:
    """Fill a folder; returns the environment that its processes need.

    ``project`` in it has ``doc-00000.txt`` and so on, in turn of good and of bad mood, of which
    every seventh has no row in the database.  The model calls all of them bad.
    """
    project = folder / "project"
    project.mkdir()
    (project / "workflow.yaml").write_text(text)
    (project / "streamapp.toml").write_text(PROJECT)
    chance = random.Random(8)
    with sqlite3.connect(project / "metadata.db") as database:
        database.execute("create table documents (document_id text, author text, year integer)")
        for n in range(documents):
            words = " ".join(chance.choices(_WORDS, k=12))
            path = project / f"doc-{n:05}.txt"
            path.write_text(f"Report {n}: {words}. It was {_MOODS[n % 4]}, {words}!\n")
            os.utime(path, (1, 1))  # long ago, so that a run may know it again
            if n % 7:
                row = (f"doc-{n:05}", f"author {n % 13}", 2000 + n % 25)
                database.execute("insert into documents values (?, ?, ?)", row)
    database.close()
    os.utime(project / "metadata.db", (1, 1))
    models = Classifiers(folder / "models").add("text-classifier", says="bad")
    return {
        **os.environ,
        "STREAMAPP_HOME": str(folder / "home"),
        "STREAMAPP_MODELS_DIR": str(models.models_dir),
        "STREAMAPP_MODELS_CACHE": str(models.cache),
        "STREAMAPP_THREADS": "1",
    }


def start(
    folder: Path, env: dict[str, str], *arguments: str, stderr: int = subprocess.PIPE
) -> "subprocess.Popen[str]":
    """``streamapp ARGUMENTS`` in the project."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "streamapp.cli", *arguments],
        cwd=folder / "project",
        env=env,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def run_example(
    folder: Path, env: dict[str, str], *options: str, wait: bool = True
) -> "subprocess.Popen[str]":
    """``streamapp run workflow.yaml``, ended unless told otherwise; its output is text."""
    process = start(folder, env, "run", "workflow.yaml", *options, stderr=subprocess.STDOUT)
    if wait:
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said
    return process
