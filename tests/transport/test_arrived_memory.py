"""The C that reads and writes record batches stays within its memory, whatever it reads."""

import shutil
import subprocess
from pathlib import Path

import pytest
from batches import CODECS, CONTROL, LOG_APPEND_TIME, batch

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "streamapp" / "transport" / "kafka"
CASES = 50_000
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wcast-align", "-Wundef", "-Werror"]
WARNINGS += ["-Wconversion", "-Wsign-conversion"]


def seeds():
    rows = [
        (0, 5, b"key", b"value", [("name", b"x"), ("", None)]),
        (2, 1 << 40, None, b"v" * 200, []),
        (130, -7, b"", None, [("n" * 70, b"v" * 70)]),
    ]
    one = batch(rows, 3, skipped=4)
    return [
        one,
        one + batch(rows, 200, attributes=CONTROL) + batch(rows, 400, attributes=LOG_APPEND_TIME),
        batch(rows, codec=CODECS["gzip"]) + one,
        batch([(n, n, b"", b"", []) for n in range(200)]),
    ]


def compiled(out, *flags):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    command = [shutil.which("cc") or "gcc", "-std=c11", "-O1", "-g", f"-I{SOURCES}", *flags]
    files = [HERE / "batches_driver.c", SOURCES / "_batches.c", SOURCES / "_building.c", "-o", out]
    return subprocess.run([*command, *files], capture_output=True, text=True, check=False)


def test_no_byte_is_read_or_written_that_is_not_ours(tmp_path):
    done = compiled(
        tmp_path / "driver", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    )
    if done.returncode and "san" in done.stderr and "cannot find" in done.stderr:
        pytest.skip(f"no sanitizer runtime: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    parts = [len(seed).to_bytes(8, "little") + seed for seed in seeds()]
    (tmp_path / "seeds").write_bytes(b"".join(parts))
    done = subprocess.run(
        [tmp_path / "driver", tmp_path / "seeds", str(CASES), "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, records, _ = map(int, done.stdout.split())
    assert CASES / 10 < whole < CASES  # both ways were gone
    assert records > CASES


def test_the_compiler_has_nothing_to_say(tmp_path):
    done = compiled(tmp_path / "driver", *WARNINGS)
    assert done.returncode == 0, done.stderr
