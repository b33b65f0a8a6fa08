"""Every log of ours keeps the same contract."""

import pytest

from streamapp.testing import MemoryLog
from streamapp.testing.contracts.log import LogAt, LogContract


class TestLocal(LogContract):
    @pytest.fixture
    def log(self, tmp_path):
        return LogAt(f"local://{tmp_path}/log")


class TestMemory(LogContract):
    @pytest.fixture
    def log(self):
        return MemoryLog()


class TestKafka(LogContract):
    @pytest.fixture
    def log(self, kafka):
        return LogAt(kafka.url)
