"""Tests of stages and of what uses a log, without broker and without Faust.

With pytest these come as the fixtures ``streamapp``, ``streamapp_clock`` and ``streamapp_log``
(:mod:`streamapp.testing.plugin`)::

    from word_count_stage import word_count

    def test_words(streamapp):
        streamapp.use(word_count)
        streamapp.send("hello world")
        assert streamapp.rows()[0]["word_count"] == 2

``streamapp.testing.contracts`` holds suites to inherit.  Importing this package loads nothing:
pytest does so in every run on a machine where streamapp is installed.
"""

from typing import TYPE_CHECKING

from streamapp._lazy import lazy

if TYPE_CHECKING:
    from streamapp.plugin.testing import HashEmbedder, HashModels, batch_of
    from streamapp.plugin.testing_operation import check_operation
    from streamapp.testing.clock import FakeClock
    from streamapp.testing.contracts.data import check_reader, check_writer
    from streamapp.testing.log import MemoryLog
    from streamapp.testing.pipeline import Pipeline

__all__ = [
    "FakeClock",
    "HashEmbedder",
    "HashModels",
    "MemoryLog",
    "Pipeline",
    "batch_of",
    "check_operation",
    "check_reader",
    "check_writer",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "FakeClock": "streamapp.testing.clock",
        "HashEmbedder": "streamapp.plugin.testing",
        "HashModels": "streamapp.plugin.testing",
        "MemoryLog": "streamapp.testing.log",
        "Pipeline": "streamapp.testing.pipeline",
        "batch_of": "streamapp.plugin.testing",
        "check_operation": "streamapp.plugin.testing_operation",
        "check_reader": "streamapp.testing.contracts.data",
        "check_writer": "streamapp.testing.contracts.data",
    },
)
