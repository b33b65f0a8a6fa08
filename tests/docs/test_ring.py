"""Every snippet, command and table of docs/ring.md is true."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pages import page

from streamapp.core.errors import Refuse
from streamapp.ring import (
    RECORD_DTYPE,
    Column,
    PhysicsConsumer,
    Ring,
    RingReader,
    RingSpec,
    RingWriter,
    RowFlag,
    SourcePosition,
    new_records,
    pack_source,
)

ROOT = Path(__file__).parents[2]
PAGE = page("ring")
PYTHON = PAGE.blocks("python")
CONSOLE = PAGE.blocks("console")
BIN = Path(sys.executable).parent
SPEC = RingSpec(384, 1024, extra=(Column("intent_scores", 4),))


def write(writer, first, n):
    rng = np.random.default_rng(first)
    vectors = rng.normal(size=(n, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    records = new_records(n)
    records["sentiment"], records["flags"] = 0.5, RowFlag.EMBEDDED
    offsets = np.arange(first, first + n)
    records["source_offset"] = pack_source(writer.source_index("events.raw", 0), offsets)
    positions = [SourcePosition("events.raw", 0, first + n, 1)]
    extra = {"intent_scores": np.full((n, 4), 0.25)}
    writer.write(records, vectors, extra=extra, positions=positions)


@pytest.fixture
def writer(tmp_path):
    with RingWriter.open(tmp_path / "ring", SPEC) as ring:
        for first in range(0, 600, 300):
            write(ring, first, 300)
        yield ring


def block(blocks, containing):
    [text] = [text for text in blocks if containing in text]
    return text


# ---- Python ----


def test_the_snippets_in_order(writer, monkeypatch, capsys):
    """One after the other, as a reader of the page tries them."""
    monkeypatch.setenv("STREAMAPP_RING_PATH", str(writer.path))
    space = {"path": writer.path, "query": Ring.open(writer.path).semantic[598]}
    for text in PYTHON:
        exec(text.replace("consumer.follow()", "consumer.follow(idle_s=0.01)"), space)
    out = capsys.readouterr().out
    assert "256 frames, 0 lost, 0 void, 344 to go" in out
    assert "256 new; 0 offsets are not in the ring any more" in out
    assert "Frames(88 rows, 0 lost, 0 void)" in out, "asyncio"
    assert "\n598\n" in out, "the nearest row, in place"
    assert re.search(r"\[.*\] 0\.5\n", out), "the consumer"
    assert space["frames"].semantic.shape == (256, 384)


class Copied:
    """A device that is done when the writer has come by."""

    def __init__(self, meanwhile):
        self.synchronize = meanwhile


def test_the_upload_is_checked_after_the_copy(writer):
    space = {}
    exec(block(PYTHON, "def upload"), space)
    ring = Ring.open(writer.path)
    first = np.array(ring.semantic[:600])

    def send(rows):
        def meanwhile():
            for at in (600, 900):
                write(writer, at, 300)

        return rows.copy(), Copied(meanwhile)

    tensor, valid, records = space["upload"](ring, 100, 200, send)
    assert tensor.shape == (200, 384)
    assert valid.tolist() == [False] * 76 + [True] * 124, "1200 written: ids below 176 are gone"
    assert np.array_equal(tensor[valid], first[176:300])
    assert records["frame_id"].tolist() == list(range(100, 300))
    tensor, valid, _ = space["upload"](ring, 1000, 200, lambda rows: (rows, Copied(lambda: None)))
    assert len(tensor) == 24, "no further than what was pinned"
    assert valid.all()


def test_the_upload_to_a_gpu(writer):
    torch = pytest.importorskip("torch", reason="torch is not installed: the upload to a GPU")
    if not torch.cuda.is_available():
        pytest.skip("no GPU: pinning the column and the asynchronous upload")
    space = {}
    exec(block(PYTHON, "def upload"), space)
    ring = Ring.open(writer.path)
    space["pin"](ring)
    tensor, valid, records = space["upload"](ring, 0, 256)
    assert valid.all()
    assert np.array_equal(tensor.cpu().numpy(), ring.semantic[:256])
    assert len(records) == 256


def test_the_calls_are_those_that_there_are():
    table = PAGE[PAGE.index("| call |") :].split("\n\n", 1)[0]
    calls = re.findall(r"`(?:reader|RingReader)\.(\w+)\(([^`]*)\)`", table)
    assert {name for name, _ in calls} == {"read", "follow", "latest", "since", "origin", "open"}
    for name, written in calls:
        known = inspect.signature(getattr(RingReader, name)).parameters
        for argument in written.split(", "):
            parameter, _, default = argument.partition("=")
            assert parameter in known or parameter == "path", (name, parameter)
            if default and name != "open":
                assert known[parameter].default == eval(default), (name, parameter)
    for name in re.findall(r"`\.(\w+)`", table):
        assert name in {"lag", "void"}
    assert {"follow", "read_latest", "read_batch"} <= set(dir(PhysicsConsumer))


# ---- tables ----


def test_the_record_s_table_is_the_layout():
    table = PAGE[PAGE.index("| offset |") :].split("\n\n", 1)[0]
    rows = re.findall(r"^\| (\d+) \| `([^`]+)`(?: \S (\d))? \| `(\w+)` \|", table, re.MULTILINE)
    assert [name for *_, name in rows] == list(RECORD_DTYPE.names)
    for offset, kind, times, name in rows:
        dtype, at = RECORD_DTYPE.fields[name]
        expected = np.dtype((kind, (int(times),))) if times else np.dtype(kind)
        assert (int(offset), expected) == (at, dtype), name


# ---- users and groups ----


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")  # Python 3.12
@pytest.mark.parametrize(("group", "may"), [(54321, True), (54322, False)])
def test_a_group_reads_a_ring_in_a_folder_of_its_own(group, may):
    folder = Path(tempfile.mkdtemp(prefix="ring-test-", dir="/dev/shm"))
    os.chown(folder, -1, 54321)
    folder.chmod(0o2750)
    try:
        with RingWriter.open(folder / "ring", SPEC) as writer:
            write(writer, 0, 5)
            child = os.fork()
            if child == 0:
                os._exit(read_as(group, folder / "ring"))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (5 if may else 100)
    finally:
        shutil.rmtree(folder)


def read_as(group, path):
    """In a child: how many frames another user of that group reads; 100 when refused."""
    os.setgroups([])
    os.setgid(group)
    os.setuid(54320)
    try:
        with RingReader.open(path) as reader:
            return len(reader.read()) if reader.stat()["writer_alive"] else 101
    except Refuse as refusal:
        return 100 if "permission denied" in refusal.message else 102


# ---- commands ----


def run(command, tmp_path, **options):
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    env["STREAMAPP_RING_PATH"] = str(tmp_path / "ring")
    return subprocess.run(
        command,
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=env,
        **options,
    )


def commands(containing):
    return block(CONSOLE, containing).replace("$ ", "").strip().splitlines()


def test_the_commands(writer, tmp_path):
    follow, batch, pytorch = commands("ring read --follow")
    assert "600 frames, 0 lost, 0 void" in run(f"{follow} --idle-s 0", tmp_path).stdout
    assert "   100 frames 0..99  semantic (100, 384) float32" in run(batch, tmp_path).stdout
    told = run(pytorch, tmp_path)
    assert "torch.float32" in told.stdout or "streamapp[torch]" in told.stderr
    for command in commands("attractors learn"):
        told = run(command, tmp_path)
        assert told.returncode == 0, told.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == [
        "ring",
        "ring.control",
    ]


def test_the_c_example(writer, tmp_path):
    """Built and run as the page says, from the root of the project."""
    build, read, struct_read = commands("ring_reader")
    for name in ("include", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    assert run(build, tmp_path, cwd=tmp_path).returncode == 0
    for command in (read, struct_read):
        told = run(command.replace("PATH", str(writer.path)), tmp_path, cwd=tmp_path)
        assert told.stderr == "600 frames, 0 lost, 0 void\n"
        assert told.stdout.splitlines()[-1].startswith("stamp=1200 frame_id=599 ")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", r"^ +599  sentiment \+0\.50"),
        ("--batch 100", r"^read 100 frames: semantic \(100, 384\) float32"),
        ("--pytorch --batch 50", r"semantic \(50, 384\) torch\.float32|streamapp\[torch\]"),
    ],
)
def test_the_consumer_s_flags(writer, tmp_path, flags, told):
    done = run(f"python {ROOT}/examples/consumer.py {flags}", tmp_path)
    assert re.search(told, done.stdout + done.stderr)
    assert "Traceback" not in done.stderr


def test_the_consumer_follows(writer, tmp_path):
    env = os.environ | {"STREAMAPP_RING_PATH": str(writer.path)}
    command = [sys.executable, ROOT / "examples/consumer.py", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout.readline().split()[0] == "599"
        write(writer, 600, 2)
        assert [process.stdout.readline().split()[0] for _ in range(2)] == ["600", "601"]
        process.terminate()


def test_the_consumer_without_a_ring(tmp_path):
    done = run(f"python {ROOT}/examples/consumer.py", tmp_path)
    assert done.returncode == 1
    assert "no such file" in done.stderr
    assert "terminal" in done.stderr
    assert "Traceback" not in done.stderr
