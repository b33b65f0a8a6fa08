"""The plugin in a pytest of a user's: light, silent, and there without a conftest."""

import subprocess
import sys

import pytest

HEAVY = {
    "faust",
    "mode",
    "pyarrow",
    "duckdb",
    "onnxruntime",
    "numpy",
    "aiokafka",
    "aiohttp",
    "msgspec",
}

STAGE_AND_TESTS = """
from streamapp.plugin import stage
from streamapp.testing.contracts.stage import StageContract

@stage("word_count", version=1, reads=["text"], writes={"words": "int32"})
def word_count(text):
    return {"words": len(text.split())}

def test_words(streamapp):
    streamapp.use(word_count)
    streamapp.send("hello world")
    assert streamapp.rows()[0]["words"] == 2

def test_the_three_belong_together(streamapp, streamapp_clock, streamapp_log):
    assert streamapp.clock is streamapp_clock
    assert streamapp.log is streamapp_log

class TestWordCount(StageContract):
    stage = word_count
"""


@pytest.fixture
def pytest_run(tmp_path):
    """Run pytest on a module, with every warning an error."""

    def run(text, *options):
        (tmp_path / "test_it.py").write_text(text)
        command = [sys.executable, "-W", "error", "-m", "pytest", "-W", "error"]
        for other in ("cacheprovider", "randomly", "asyncio"):  # asyncio warns of its own settings
            command += ["-p", f"no:{other}"]
        command += options
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_run_without_our_fixtures_loads_nothing(pytest_run):
    text = "import sys\ndef test_it():\n    print('loaded', *sys.modules)\n"
    code, out = pytest_run(text, "-s")
    assert code == 0, out
    [line] = [line for line in out.splitlines() if line.find("loaded ") >= 0]
    names = line.split()
    assert "streamapp.testing.plugin" in names
    assert not {name.partition(".")[0] for name in names} & HEAVY
    ours = {name for name in names if name.startswith("streamapp.")}
    assert ours == {"streamapp._lazy", "streamapp.testing", "streamapp.testing.plugin"}


def test_fixtures_and_the_contract_work_without_a_conftest(pytest_run):
    code, out = pytest_run(STAGE_AND_TESTS, "-q")
    assert code == 0, out
    assert "10 passed" in out


def test_a_broken_contract_is_explained(pytest_run):
    broken = STAGE_AND_TESTS.replace("len(text.split())", "1 // len(text.split())")
    code, out = pytest_run(broken, "-q", "-k", "TestWordCount")
    assert code == 1
    assert "ZeroDivisionError" in out
    assert "assert [Rejected(" in out or "assert accidents == []" in out


def test_the_fixtures_are_described(pytest_run):
    _, out = pytest_run("", "--fixtures")
    for name in ("streamapp", "streamapp_clock", "streamapp_log"):
        assert f"\n{name} -- " in out


def test_the_names_of_the_package():
    import streamapp.testing

    assert set(streamapp.testing.__all__) <= set(dir(streamapp.testing))
    for name in streamapp.testing.__all__:
        assert getattr(streamapp.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = streamapp.testing.nothing
