"""``streamapp ring`` on a real ring."""

import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import click
import numpy as np
import pytest

from streamapp.cli.frames import Lines
from streamapp.ring import (
    Column,
    RingReader,
    RingSpec,
    RingWriter,
    SourcePosition,
    new_records,
    pack_source,
)

SPEC = RingSpec(8, 64, extra=(Column("intent_scores", 2),))


@pytest.fixture
def writer(tmp_path):
    with RingWriter.open(tmp_path / "ring", SPEC) as ring:
        yield ring


@pytest.fixture
def look(run, tmp_path):
    """``streamapp ring VERB ...`` on the test's ring."""
    return lambda *arguments: run("ring", *arguments, "--ring-path", tmp_path / "ring")


def write(ring, first, count):
    records = new_records(count)
    records["sentiment"] = 0.5
    records["source_offset"] = pack_source(
        ring.source_index("events.raw", 0), np.arange(first, first + count)
    )
    vectors = np.full((count, 8), 1 / np.sqrt(8), np.float32)
    positions = [SourcePosition("events.raw", 0, first + count, first + count)]
    extra = {"intent_scores": np.tile([0.25, 0.75], (count, 1))}
    ring.write(records, vectors, extra=extra, positions=positions)


def test_no_ring_says_who_makes_it(look):
    result = look("stat")
    assert result.code == 2
    assert "there is no such file" in result.err
    assert "start what writes it" in result.err


def test_stat(look, writer):
    write(writer, 0, 10)
    text = look("stat").out
    assert "10 written, 10 kept, next id 10" in text
    assert "64 frames, " in text
    assert "semantic 8 <f4, intent_scores 2 <f4" in text
    assert "events.raw/0 up to 10" in text
    said = look("stat", "--json").json
    assert (said["frames"], said["capacity"], said["writer_alive"]) == (10, 64, True)
    assert said["sources"][0]["topic"] == "events.raw"
    assert said["columns"][1] == {"name": "intent_scores", "dim": 2, "dtype": "<f4"}


@pytest.mark.parametrize(("count", "ids"), [(3, [7, 8, 9]), (100, list(range(10))), (0, [])])
def test_tail_prints_the_newest(look, writer, count, ids):
    write(writer, 0, 10)
    result = look("tail", "-n", str(count), "--json")
    assert [json.loads(line)["frame_id"] for line in result.out.splitlines()] == ids


def test_tail_line(look, writer):
    write(writer, 0, 1)
    frame = json.loads(look("tail", "--json").out)
    assert frame["sentiment"] == 0.5
    assert frame["velocity"] is None, "unknown is null, not NaN"
    assert len(frame["semantic"]) == 8
    assert frame["intent_scores"] == [0.25, 0.75]
    assert frame["source"] == {"topic": "events.raw", "partition": 0, "offset": 0}
    head, line = look("tail").out.splitlines()
    names = head.split()
    assert names[-2:] == ["semantic", "intent_scores"]
    values = dict(zip(names, line.split(), strict=False))
    assert (values["frame_id"], values["sentiment"], values["velocity"]) == ("0", "+0.50", "-")
    assert line.endswith("+0.2500 +0.7500")


def test_a_frame_of_no_log_and_nothing_known(look, writer):
    """Everything unknown is a dash, or null."""
    rows = np.full((1, 8), np.nan)
    writer.write(new_records(1), rows, extra={"intent_scores": rows[:, :2]})
    frame = json.loads(look("tail", "--json").out)
    assert (frame["source"], frame["sentiment"], frame["semantic"]) == (None, None, [None] * 8)
    assert look("tail").out.splitlines()[1].split().count("-") == 6


def test_read_goes_from_the_oldest_to_the_newest_in_batches(look, writer):
    write(writer, 0, 50)
    write(writer, 50, 50)
    *batches, total = (
        json.loads(line) for line in look("read", "--batch", "30", "--json").out.splitlines()
    )
    assert [batch["frames"] for batch in batches] == [30, 30, 4]
    assert batches[0]["first"] == 36
    assert batches[0]["shapes"] == {"semantic": [30, 8], "intent_scores": [30, 2]}
    assert batches[0]["dtypes"]["semantic"] == "float32"
    assert total["total"]["frames"] == 64
    assert "64 frames, 0 lost, 0 void" in look("read").out


def test_tensors_need_torch(look, writer, monkeypatch):
    write(writer, 0, 5)
    monkeypatch.setitem(sys.modules, "torch", None)  # import says that there is none
    result = look("read", "--pytorch")
    assert result.code == 2
    assert "pip install 'streamapp[torch]'" in result.err


def test_tensors_are_made_of_the_reader_s_arrays(look, writer, monkeypatch):
    write(writer, 0, 5)
    given = []
    torch = SimpleNamespace(from_numpy=lambda array: given.append(array) or array)
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "semantic (5, 8) float32" in look("read", "--pytorch").out
    assert given[0].flags.c_contiguous


def test_follow_sees_what_comes_later(writer, tmp_path):
    write(writer, 0, 2)
    command = [sys.executable, "-m", "streamapp.cli", "ring", "tail", "--follow", "--json"]
    with subprocess.Popen(
        [*command, "--ring-path", str(tmp_path / "ring")], stdout=subprocess.PIPE, text=True
    ) as process:
        ids = [json.loads(process.stdout.readline())["frame_id"] for _ in range(2)]
        write(writer, 2, 3)
        ids += [json.loads(process.stdout.readline())["frame_id"] for _ in range(3)]
        process.kill()
    assert ids == [0, 1, 2, 3, 4]


def test_seconds_that_are_no_number_are_refused(look, writer):
    result = look("tail", "--follow", "--idle-s", "nan")
    assert result.code == 2
    assert "--idle-s" in result.err


def test_tail_needs_no_lock(look, writer, tmp_path):
    """Whoever may read the ring may see its newest frames."""
    write(writer, 0, 5)
    (tmp_path / "ring.lock").rename(tmp_path / "elsewhere")
    (tmp_path / "ring.lock").mkdir()
    (tmp_path / "ring.lock").rmdir()
    (tmp_path / "ring.lock").symlink_to("elsewhere")
    assert look("tail", "-n", "2").out.count("\n") == 3


def test_follow_ends_when_idle(look, writer):
    write(writer, 0, 2)
    result = look("read", "--follow", "--idle-s", "0")
    assert result.code == 0
    assert "2 frames, 0 lost" in result.out


def test_follow_waits_for_a_ring_that_nobody_has_made(tmp_path):
    command = [sys.executable, "-m", "streamapp.cli", "ring", "read", "--follow", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        [*command, "--ring-path", str(tmp_path / "ring")], **pipes, text=True
    ) as process:
        told = process.stderr.readline()
        assert "waiting for" in told
        assert "streamapp terminal" in told
        with RingWriter.open(tmp_path / "ring", SPEC) as ring:
            write(ring, 0, 3)
            assert json.loads(process.stdout.readline())["frames"] == 3
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["total"]["frames"] == 3, "ctrl-C ends it with the totals"
    assert err.strip() == ""


def test_a_wait_for_a_ring_may_have_an_end(look):
    result = look("tail", "--follow", "--idle-s", "0.01")
    assert result.code == 2
    assert "there is no such file" in result.err


def test_a_reader_that_has_seen_enough(writer, tmp_path):
    """``| head -1``: no traceback, no message."""
    write(writer, 0, 30)
    write(writer, 30, 30)
    command = (
        f"{sys.executable} -m streamapp.cli ring tail -n 60 --json --ring-path {tmp_path}/ring"
    )
    done = subprocess.run(
        f"{command} | head -1", shell=True, capture_output=True, text=True, timeout=60, check=False
    )
    assert json.loads(done.stdout)["frame_id"] == 0
    assert done.stderr == ""


def test_what_was_lost_is_told(look, writer, monkeypatch):
    write(writer, 0, 20)
    opened = RingReader.open

    def slow(*args, **options):
        reader = opened(*args, **options)
        for start in (20, 52, 84):
            write(writer, start, 32)
        return reader

    monkeypatch.setattr(RingReader, "open", slow)
    assert "52 lost, 0 void" in look("read").out
    assert "84 frames" not in look("read").out


def test_colours_only_on_a_terminal(look, writer):
    write(writer, 0, 3)
    for verb in ("stat", "tail", "read"):
        assert "\x1b" not in look(verb).out


@pytest.mark.parametrize("verb", ["stat", "tail", "read"])
def test_colours_on_a_terminal(writer, tmp_path, verb):
    write(writer, 0, 3)
    command = f"{sys.executable} -m streamapp.cli ring {verb} --ring-path {tmp_path}/ring"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ("\x1b[" in done.stdout) == (verb != "read"), "read has nothing to say in colour"


def test_a_long_read_into_a_file_shows_how_far_it_is(writer, tmp_path):
    """On the terminal that standard error still is; the file gets the batches and nothing else."""
    write(writer, 0, 32)
    write(writer, 32, 32)
    command = f"{sys.executable} -m streamapp.cli ring read --batch 1 --ring-path {tmp_path}/ring"
    shell = f"{command} --json > {tmp_path}/out"
    done = subprocess.run(
        ["script", "-qec", shell, "/dev/null"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "100%" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert (len(lines), lines[-1]["total"]["frames"]) == (65, 64)


def test_an_unknown_engine_is_refused(look):
    assert "c, twin" in look("stat", "--ring", "rust").err


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        (120, "conversation", "intent_scores"),
        (80, "velocity", "semantic"),
        (40, "sentiment", "velocity"),
    ],
)
def test_lines_are_not_folded_by_a_narrow_terminal(tmp_path, writer, width, shown, left_out):
    write(writer, 0, 1)
    with RingReader.open(tmp_path / "ring", start="oldest") as reader:
        frames = reader.read(1)
        lines = Lines(frames.columns, width)
        line = click.unstyle(lines.line(frames[0]))
    assert shown in lines.heading()
    assert left_out not in lines.heading()
    assert len(line) <= width
    assert len(lines.heading()) <= width
    assert "+0.50" in line


def test_a_pipe_gets_all_fields(look, writer):
    write(writer, 0, 1)
    heading, line = look("tail").out.splitlines()
    assert heading.split()[-2:] == ["semantic", "intent_scores"]
    assert line.endswith("+0.2500 +0.7500")
