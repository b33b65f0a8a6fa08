"""Processes of one group on one machine have a folder each, whatever became of those before."""

import asyncio
import subprocess
import sys

import pytest
from flow_bench import Bench, graph

from streamapp.agents.flow.spool import own_folder
from streamapp.core.errors import Refuse

ROWS = [{"n": n} for n in range(9)]
FILTER = {"service": "pipeline", "operation": "filter", "config": {"where": "n >= 0"}}
STAGES = [
    {"name": "kept", "inputs": ["rows"], **FILTER},
    {"name": "other", "inputs": ["rows"], **FILTER, "scale": "own"},
    {
        "name": "joined", "service": "pipeline", "operation": "join",
        "depends_on": ["kept", "other"], "config": {"on": ["n"]},
    },
]  # fmt: skip
OUTPUTS = {"joined": {"source": "joined", "format": "json"}}


async def test_two_that_do_the_same_run_at_once_leave_each_others_files_alone(tmp_path):
    bench = Bench(graph(tmp_path, STAGES, OUTPUTS, ROWS))
    await bench.feed()
    await bench.work("after-rows")
    agents, spool = [bench.agent("joined", []) for _ in range(2)], tmp_path / "spool" / "joined"
    for agent in agents:
        await agent.start_positions([("t.kept", 0)])
    works = [asyncio.create_task(a._work(1, a._standing.begin, lambda: True)) for a in agents]
    async with asyncio.timeout(60):
        while len(list(spool.glob("**/other"))) < 2:
            await asyncio.sleep(0.01)
        await bench.work("other")
        await asyncio.gather(*works)
    assert [row["n"] for row in (await bench.rows("joined", tmp_path))[0]] == list(range(9))
    assert not [path for path in spool.iterdir() if path.is_dir()]
    for agent in agents:
        await agent.stop()


def test_what_the_dead_left_is_removed_and_what_the_living_hold_is_not(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from streamapp.agents.flow.spool import own_folder\n"
        "held = [own_folder(pathlib.Path(sys.argv[1])) for _ in range(2)]\n"
        "for each in held:\n"
        "    (each.__enter__() / 'rows').touch()\n"
        "os._exit(0)\n"
    )
    with own_folder(tmp_path) as first:
        (first / "rows").touch()
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
        assert len(list(tmp_path.glob("*/rows"))) == 3
        with own_folder(tmp_path) as second:
            assert second != first
            assert list(tmp_path.glob("*/rows")) == [first / "rows"]
    assert not list(tmp_path.glob("*/rows"))


def test_a_place_where_nothing_can_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(Refuse, match="file/group: Not a directory"),
        own_folder(tmp_path / "file/group"),
    ):
        pass
