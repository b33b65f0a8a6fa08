"""The C engine under AddressSanitizer, UBSan, ThreadSanitizer and valgrind, and without a warning."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ENGINE = HERE.parents[1] / "streamapp" / "ring"
INCLUDE = HERE.parents[1] / "include"
CC = shutil.which("cc") or shutil.which("gcc")
PROGRAM = HERE / "programs" / "sanitized.c", ENGINE / "_protocol.c"
EXTENSION = [ENGINE / f"_{name}.c" for name in ("ring", "writing", "buffers", "mirror", "protocol")]
FOR_PYTHON = ["-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", f"-I{np.get_include()}"]
FOR_PYTHON += ["-DPy_LIMITED_API=0x030B0000"]
#: The reader's two copies race with the writer by design; nothing else does.
SUPPRESSED = "race:copy_record_out\nrace:copy_rows_out\n"

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler")


def build(out, sources, *flags):
    command = [CC, "-std=c11", "-g", f"-I{INCLUDE}", f"-I{ENGINE}", *flags, *sources, "-o", out]
    done = subprocess.run([*command, "-pthread"], capture_output=True, text=True, check=False)
    if done.returncode and "cannot find" in done.stderr:
        pytest.skip(f"no sanitizer runtime: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return out


def run(command, **environment):
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=600,
    )
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer cannot run with this kernel's address layout")
    return done


def test_no_byte_outside_the_file_and_the_arrays_is_touched(tmp_path):
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program = build(tmp_path / "fuzz", PROGRAM, *flags)
    done = run([program, "fuzz", 20_000, 7])
    assert done.returncode == 0, done.stderr
    fitted, kept = map(int, done.stdout.split())
    assert 2000 < fitted < 19_000, "both kinds of geometry came up"
    assert kept > 10_000


def test_valgrind_has_nothing_to_say(tmp_path):
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind")
    program = build(tmp_path / "fuzz", PROGRAM, "-O1")
    done = run(["valgrind", "--quiet", "--error-exitcode=9", program, "fuzz", 150, 11])
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10


def test_threads_race_only_in_the_readers_copies(tmp_path):
    """With the suppressions nothing is found; without them something: so races are seen at all."""
    program = build(tmp_path / "races", PROGRAM, "-O1", "-fsanitize=thread", "-Wno-tsan")
    known = tmp_path / "suppressions"
    known.write_text(SUPPRESSED)
    calm = ["setarch", "-R"] if shutil.which("setarch") else []
    command = [*calm, program, "races", 30_000, 5]
    done = run(command, TSAN_OPTIONS=f"suppressions={known} halt_on_error=0 exitcode=66")
    assert done.returncode == 0, done.stderr[:4000]
    accepted, torn = map(int, done.stdout.split())
    assert torn == 0
    assert accepted > 1000
    seen = run(command, TSAN_OPTIONS="exitcode=66")
    assert seen.returncode != 0
    assert "data race" in seen.stderr


def test_a_commit_without_a_system_call_leaves_nobody_asleep(tmp_path):
    """By a clock and a kernel of the test's own: what may be skipped, and what must be watched."""
    wrap = "-Wl,--wrap=syscall,--wrap=clock_gettime"
    sources = HERE / "programs" / "clockwork.c", ENGINE / "_protocol.c"
    done = run([build(tmp_path / "clockwork", sources, "-O1", wrap), 20_000, 3])
    assert done.returncode == 0, done.stderr
    sleeps, wakes, skipped = map(int, done.stdout.split())
    assert sleeps > 1000
    assert wakes > 20_000
    assert skipped > 100_000, "in a dense stream there is no call at all"


def test_no_order_of_steps_leaves_a_reader_asleep(tmp_path):
    """The engine's own code, a writer and a reader by turns after any load, store or call."""
    program = HERE / "programs" / "interleaved.c"
    done = run([build(tmp_path / "interleaved", [program], "-O1", *WARNINGS), 5_000, 1])
    assert done.returncode == 0, done.stderr
    sleeps, skipped, kills = map(int, done.stdout.split())
    assert sleeps > 10_000
    assert skipped > 10_000, "in a dense stream there is no call at all"
    assert kills > 100


WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wcast-align", "-Wundef", "-Wvla", "-Werror"]


def test_the_compiler_has_nothing_to_say(tmp_path):
    build(tmp_path / "program", PROGRAM, "-O2", "-Wconversion", "-Wsign-conversion", *WARNINGS)
    build(tmp_path / "_ring.so", EXTENSION, "-O2", *FOR_PYTHON, *WARNINGS)


USE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("streamapp.ring._ring", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = module
spec.loader.exec_module(module)
import numpy as np
from streamapp.ring import RingReader, RingSpec, RingWriter, new_records
from streamapp.ring.layout import Column
dice = np.random.default_rng(3)
wrong = [None, 3, b"", b"x" * 7, (), (None,), np.zeros(3), np.zeros((2, 4), "<f4")[:, ::2]]
for turn, columns in enumerate(((), (Column("scores", 512, "<f2"), Column("odd", 3)))):
    path = f"{sys.argv[2]}/ring{turn}"
    with RingWriter.open(path, RingSpec(64, 16, extra=columns)) as writer:
        reader, ops = RingReader.open(path), writer._map.ops
        rows = {c.name: np.ones((8, c.dim), c.dtype) for c in writer.spec.columns}
        for step in range(400):
            n = int(dice.integers(1, 9))
            extra = {name: array[:n] for name, array in rows.items()}
            semantic = extra.pop("semantic")
            if step % 3:
                writer.write(new_records(n), semantic, extra=extra)
            else:
                with writer.reserve(n) as reserved:
                    for array in reserved.columns.values():
                        array[:] = 2
                    if step % 2:
                        reserved.commit(new_records(n), keep=np.arange(n) % 3 > 0)
            reader.read(int(dice.integers(0, 20)))
            picked = [wrong[i] for i in dice.integers(0, len(wrong), 3)]
            for call in (ops.write, ops.writer(len), ops.commit, ops.read, ops.wait):
                try:
                    call(*picked)
                except (TypeError, ValueError, BufferError, OverflowError, RuntimeError):
                    pass
            for argument in picked:
                for call in (ops.reserve, ops.mirror, ops.go_live):
                    try:
                        if not isinstance(argument, int):
                            call(argument)
                    except (TypeError, ValueError, IndexError):
                        pass
        kept = reader.latest(4)
        assert len(kept) and reader.lost + reader.void > 0
print("done")
"""


def test_the_extension_under_address_sanitizer(shm, tmp_path):
    flags = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    module = build(tmp_path / "_ring.abi3.so", EXTENSION, *flags, *FOR_PYTHON)
    runtime = [
        subprocess.run(
            [CC, f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("asan", "ubsan")
    ]
    done = run(
        [sys.executable, "-c", USE, module, shm],
        LD_PRELOAD=" ".join(runtime),
        ASAN_OPTIONS="detect_leaks=0",
        PYTHONMALLOC="malloc",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip() == "done"
