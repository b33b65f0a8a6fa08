"""One name everywhere, the nearest source wins, and every bad value is named with its place."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from streamapp.core.config import describe, env_name, load, to_environment
from streamapp.core.errors import Refuse


def test_flag_beats_environment_beats_dotenv_beats_project_beats_default(tmp_path):
    (tmp_path / "streamapp.toml").write_text(
        "gateway_port = 1\nflight_port = 1\nworker_port = 1\nstore_port = 1\n"
    )
    (tmp_path / ".env").write_text(
        "STREAMAPP_GATEWAY_PORT=2\nSTREAMAPP_FLIGHT_PORT=2\nSTREAMAPP_WORKER_PORT=2\nOTHER=x\n"
    )
    environ = {"STREAMAPP_GATEWAY_PORT": "3", "STREAMAPP_FLIGHT_PORT": "3"}
    settings, origins = load({"gateway_port": 4}, environ=environ, folder=tmp_path)
    ports = [settings.gateway_port, settings.flight_port, settings.worker_port, settings.store_port]
    assert ports == [4, 3, 2, 1]
    assert settings.terminal_port == 9386
    assert origins["gateway_port"].where == "flag"
    assert origins["flight_port"].where == "environment"
    assert origins["worker_port"].where == str(tmp_path / ".env")
    assert origins["store_port"].where == str(tmp_path / "streamapp.toml")
    assert origins["terminal_port"].where == "default"


def test_paths_are_relative_to_the_file_that_says_them(tmp_path):
    (tmp_path / "streamapp.toml").write_text('home = ".streamapp"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings, _ = load(environ={}, folder=below)
    assert settings.home == tmp_path / ".streamapp"
    assert settings.broker_url == f"local://{tmp_path}/.streamapp/log"
    assert settings.store_path == f"{tmp_path}/.streamapp/store.duckdb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gateway_port = [", "streamapp.toml:1:"),
        ("gateway_prot = 1", "no setting is called 'gateway_prot'"),
        ('gateway_port = "abc"', "'abc'"),
        ("gateway_port = 99999", "not a port"),
        ("gateway_port = true", "not a whole number"),
        ("flush_rows = 0", "too small"),
        ("threads = 99999999999999999999", "too large"),
        ("body_bytes_max = 99999999999999999999", "too large"),
        ("ring_frames = 10000", "not a power of two"),
        ('log_level = "loud"', "'loud'"),
        ("gateway_port = [1]", "not a whole number"),
        ("home = 2020-01-01", "not a text"),
        ('cors_origins = ["https://a.example"]', "not a text"),
        ("broker = 5", "not a text"),
        ("[gateway]\nport = 1", "no table is called 'gateway'"),
        ("[exprots.crm]", "no table is called 'exprots'"),
        ("[flow_params]\na = 1", "flow_params is a setting, not a table"),
        ("exports = 1", "exports is a table, not a setting"),
    ],
)
def test_a_bad_project_file_names_file_and_reason(tmp_path, text, message):
    (tmp_path / "streamapp.toml").write_text(text)
    with pytest.raises(Refuse) as caught:
        load(environ={}, folder=tmp_path)
    assert message in caught.value.message
    assert "streamapp.toml" in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("said", ["true", "false"])
def test_toml_s_own_true_and_false_are_taken(tmp_path, said):
    (tmp_path / "streamapp.toml").write_text(f"json_twin = {said}\n")
    assert load(environ={}, folder=tmp_path)[0].json_twin == said


def test_true_and_false_are_no_text_where_text_is_asked_for(tmp_path):
    (tmp_path / "streamapp.toml").write_text("json_twin = 1\n")
    with pytest.raises(Refuse, match=r"json_twin = 1 .+ is not a text"):
        load(environ={}, folder=tmp_path)


def test_a_misspelt_table_gets_a_suggestion(tmp_path):
    (tmp_path / "streamapp.toml").write_text("[exprots.crm]\n")
    with pytest.raises(Refuse) as caught:
        load(environ={}, folder=tmp_path)
    assert caught.value.fix == "did you mean [exports]?"


@pytest.mark.parametrize("table", ["exports", "interop", "models", "sources", "webhooks"])
def test_the_tables_that_others_read_are_passed_over(tmp_path, table):
    (tmp_path / "streamapp.toml").write_text(f"gateway_port = 1\n[{table}.one]\nx = 1\n")
    assert load(environ={}, folder=tmp_path)[0].gateway_port == 1


def test_a_byte_order_mark_is_passed_over(tmp_path):
    (tmp_path / "streamapp.toml").write_text("gateway_port = 1\n", encoding="utf-8-sig")
    assert load(environ={}, folder=tmp_path)[0].gateway_port == 1


@pytest.mark.parametrize("name", ["home", "gateway_port", "log_level", "token", "topics_dir"])
def test_an_empty_value_says_the_default(tmp_path, name):
    expected = getattr(load(environ={}, folder=tmp_path)[0], name)
    assert getattr(load({name: ""}, environ={}, folder=tmp_path)[0], name) == expected
    said = {env_name(name): ""}
    assert getattr(load(environ=said, folder=tmp_path)[0], name) == expected


def test_a_line_of_dotenv_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / ".env").write_text('OTHER=x\nSTREAMAPP_GATEWAY_PORT="9382\n')
    with pytest.raises(Refuse, match=r"\.env:2: ") as caught:
        load(environ={}, folder=tmp_path)
    assert "quote" in caught.value.fix


def test_a_toml_error_gives_line_and_column(tmp_path):
    (tmp_path / "streamapp.toml").write_text("a = 1\nb = = 2\n")
    with pytest.raises(Refuse, match=r"streamapp\.toml:2:5: "):
        load(environ={}, folder=tmp_path)


def test_a_misspelt_name_in_dotenv_gets_a_suggestion(tmp_path):
    (tmp_path / ".env").write_text("STREAMAPP_TOKN=x\n")
    with pytest.raises(Refuse) as caught:
        load(environ={}, folder=tmp_path)
    assert "STREAMAPP_TOKEN" in caught.value.fix


def test_a_dotenv_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"STREAMAPP_TOKEN=\xff\n")
    with pytest.raises(Refuse, match=r"\.env: byte 16 is not UTF-8"):
        load(environ={}, folder=tmp_path)


def test_every_setting_says_what_it_is_for():
    assert all(declared.metadata["about"] for declared in describe())
    assert env_name("gateway_port") == "STREAMAPP_GATEWAY_PORT"


def test_another_process_loads_the_same_settings_from_the_environment(tmp_path):
    (tmp_path / "streamapp.toml").write_text('home = "here"\nring_path = "r"\ntoken = "t"\n')
    settings, _ = load({"gateway_port": 4}, environ={}, folder=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load(environ=to_environment(settings), folder=elsewhere)[0] == settings


@pytest.mark.parametrize(("ring", "engine"), [("c", "c"), ("twin", "twin"), ("direct", "c")])
def test_ring_says_who_writes_it_and_thereby_which_engine_reads_it(tmp_path, ring, engine):
    settings, _ = load({"ring": ring}, environ={}, folder=tmp_path)
    assert settings.ring_engine == engine


def test_the_ring_s_old_setting_is_unknown(tmp_path):
    (tmp_path / "streamapp.toml").write_text('ring_engine = "twin"\n')
    with pytest.raises(Refuse, match="ring_engine"):
        load(environ={}, folder=tmp_path)


def test_an_unknown_ring_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(Refuse, match="rust") as refused:
        load({"ring": "rust"}, environ={}, folder=tmp_path)
    assert refused.value.fix == "give one of c, twin, direct"


def test_another_process_loads_the_same_settings_whatever_is_in_our_environment(tmp_path):
    (tmp_path / "streamapp.toml").write_text('ring_path = "project.ring"\n')
    settings, _ = load({"home": "h"}, environ={}, folder=tmp_path / "elsewhere")
    ours = {"STREAMAPP_RING_PATH": "/ours.ring", "STREAMAPP_TOPICS_DIR": "/ours"}
    for one in (settings, replace(settings, ring_path=None)):
        again, _ = load(environ={**ours, **to_environment(one)}, folder=tmp_path)
        assert again == one


AS_NOBODY = """
import os, sys
from pathlib import Path
from streamapp.core.settings import rings_folder
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(os.geteuid(), rings_folder(Path(sys.argv[1])))
"""


def rings_of_another_user(shared):
    """Who that is, and where that user's rings are; we are that user where we are not root."""
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, shared], capture_output=True, text=True, check=True
    )
    user, folder = done.stdout.split()
    return int(user), Path(folder)


def test_rings_of_a_user_whom_the_first_one_s_folder_is_closed_to_are_in_one_of_their_own():
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder)
        shared.chmod(0o755)
        assert rings_of_another_user(shared)[1] == shared / "streamapp"
        (shared / "streamapp").mkdir(mode=0o600)
        user, rings = rings_of_another_user(shared)
        assert rings == shared / f"streamapp-{user}"
        (shared / "streamapp").chmod(0o755)  # as for a group that reads them
        assert rings_of_another_user(shared)[1] == shared / "streamapp"
