"""When Python's collector of cycles is left out."""

import gc
import subprocess
import sys

import pytest

from streamapp.core.cycles import uncollected

_CYCLE = """
class Held:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("looked at")
"""


def said_at_the_end(code):
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{_CYCLE}\n{code}"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_what_is_made_is_not_looked_at():
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_on_again_after_an_error():
    with pytest.raises(KeyError), uncollected():
        raise KeyError("declared wrongly")
    assert gc.isenabled()


def test_who_had_it_off_has_it_off():
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_the_interpreter_s_end_looks_at_nothing_and_keeps_the_exit_code():
    ended = "from streamapp.core.cycles import end_at_once; end_at_once(); held = Held(); {}"
    assert said_at_the_end("held = Held()") == (0, "looked at\n")
    assert said_at_the_end(ended.format("del held")) == (0, "")
    assert said_at_the_end(ended.format("raise SystemExit(3)")) == (3, "")


def test_other_handlers_run_all_the_same():
    code = "import atexit; from streamapp.core.cycles import end_at_once\n"
    for last in (
        "end_at_once(); atexit.register(print, 'bye')",
        "atexit.register(print, 'bye'); end_at_once()",
    ):
        assert said_at_the_end(code + last) == (0, "bye\n")
