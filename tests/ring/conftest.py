import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
sys.path.insert(0, str(PROGRAMS))  # ring_content, shared by the tests and the programs they start


@pytest.fixture
def shm():
    """A folder in shared memory, where rings live."""
    folder = Path(tempfile.mkdtemp(prefix="ring-test-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start():
    """Starts one of the programs; at the end of the test it is killed if it still runs."""
    started = []

    def run(name, *args):
        command = [sys.executable, str(PROGRAMS / name), *map(str, args)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(params=["c", "twin"])
def engine(request):
    return request.param
