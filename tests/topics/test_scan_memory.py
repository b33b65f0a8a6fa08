"""The C that reads events stays within its memory, whatever it reads."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "streamapp" / "topics"
CASES = 200_000
SEEDS = [
    ('{"id":"e1","type":"T","source":"/s","conversation":"c","actor":"a","time":"2026-11-22T09:30:00.5Z","duration_ms":1.5,'
    '"message":"hello","x":{"y":[1,2.5e3,true]}}'),
    '{"message":"a\\"\\\\\\/\\b\\u00e9\\ud83d\\ude00é😀","\\u0069d":"\\n","k\\u0022\\u0001":1,"k":{"\\u0061":1,"b":2}}',
    ' { "time" : 1795336200123 , "attachments" : [ {} , [ ] , null ] , "id" : 12 , "text" : null }\r\t',
    json.dumps({f"key {n}": n for n in range(64)}),
    '{"id":"' + "é" * 300 + '","actor":"' + "\\u00e9" * 513 + '","duration_ms":0.30000000000000004}',
    '{"x":' * 30 + "[" * 31 + "]" * 31 + "}" * 30,
    '{"conversation_id":"c","conversation":"d","x":1e299,"y":-0.000001E-9,"z":"' + "z" * 1000 + '"}',
    '{"time":"2024-02-29T23:59:59.999999-14:00","type":"","source":""}',
    "{}",
    ('{"specversion":"1.0","id":"e\\u0031","source":"/s","type":"T","time":"2026-11-22T09:30:00.5Z","subject":"é","a":"b",'
    '"datacontenttype":"application/json","partitionkey":"k","data":{"message":"hello","x":[1,{"y":2}]}}'),
    '{"data":{"id":"d","conversation_id":"c"},"specversion":"1.0","type":"T","source":"/s","id":"' + "x" * 512 + '"}',
]  # fmt: skip


def compiled(out, *flags):
    files = [
        HERE / "events_driver.c",
        *(
            SOURCES / f"_{name}.c"
            for name in ("events", "envelope", "event", "json", "arrow", "records")
        ),
    ]
    command = [shutil.which("cc") or "gcc", "-std=c11", "-O1", "-g", f"-I{SOURCES}", *flags, *files]
    return subprocess.run([*command, "-o", out], capture_output=True, text=True, check=False)


@pytest.fixture
def driver(tmp_path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    done = compiled(
        tmp_path / "driver", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"
    )
    if done.returncode and "san" in done.stderr and "cannot find" in done.stderr:
        pytest.skip(f"no sanitizer runtime: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return tmp_path / "driver"


def test_no_byte_is_read_or_written_that_is_not_ours(driver, tmp_path):
    (tmp_path / "seeds").write_text("\n".join(SEEDS) + "\n")
    done = subprocess.run(
        [driver, tmp_path / "seeds", str(CASES), "7"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout.split()[0])
    assert CASES / 5 < taken < CASES  # both ways were gone


def test_the_compiler_has_nothing_to_say(tmp_path):
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    warn = [
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wsign-conversion",
        "-Wshadow",
        "-Wcast-align",
        "-Wundef",
        "-Werror",
    ]
    done = compiled(tmp_path / "driver", *warn)
    assert done.returncode == 0, done.stderr
