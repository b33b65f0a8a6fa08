"""Benchmarks leave nothing behind."""

from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
CONTENDER = "#!/bin/sh\nmktemp -d\nexec sleep 600\n"


def test_what_a_contender_left_is_gone_when_it_was_killed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from transport.contest import Contest
    from transport.meter import Task

    program = tmp_path / "contender"
    program.write_text(CONTENDER)
    program.chmod(0o700)
    contest = Contest("127.0.0.1:9", pythons={"received": str(program)})
    with contest.process("received", "ours", Task("", "", 1, 1)) as process:
        left = Path(process.stdout.readline().strip())
        assert left.is_dir()
    assert process.returncode is not None
    assert not left.exists()
