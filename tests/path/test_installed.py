"""An installed wheel works outside the source tree: init, up, an event, a row."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from wheels import copy_of_the_tree

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel):
    """The wheel in an environment of its own; its dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    python = folder / "venv" / "bin" / "python"
    run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)])
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    # Appended, so that the wheel comes first; .pth files of that folder are not read from here.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv" / "bin"


def run(command, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=240, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_init_and_up_in_an_empty_folder(installed, machines, tmp_path):
    run([installed / "streamapp", "init", "shop"], cwd=tmp_path)
    shop = tmp_path / "shop"
    machine = machines("shop/.streamapp")
    machine.env = {
        k: v for k, v in machine.env.items() if k not in {"STREAMAPP_HOME", "PYTHONPATH"}
    }
    machine.start(python=str(installed / "python"), folder=shop)
    taken = machine.post({"message": "Quero cancelar meu plano"})
    machine.wait_rows(1)
    assert machine.rows("select id, intent from events") == [
        {"id": taken["id"], "intent": "cancel"}
    ]
    assert (shop / ".streamapp" / "store.duckdb").exists()
    code = "import streamapp; print(streamapp.__file__)"
    where = run(
        [installed / "python", "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}
    )
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert machine.stop() == 0


def test_without_a_compiler_pip_says_so_in_one_line(tmp_path):
    tree = copy_of_the_tree(tmp_path / "tree")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext"], cwd=tree, capture_output=True, text=True, check=False,
        env=os.environ | {"CC": "no-such-compiler"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "needs a C compiler" in done.stderr.strip().splitlines()[-1]
