import pytest

from streamapp.cli.framework import command
from streamapp.cli.options import settings_options
from streamapp.core.config import describe, env_name


def test_every_setting_is_shown_with_its_meaning(run):
    shown = run("config", "show", "--json").json
    assert list(shown) == [field.name for field in describe()]
    for field in describe():
        assert shown[field.name]["about"] == field.metadata["about"]
        assert shown[field.name]["environment"] == env_name(field.name)
    table = run("config", "show").out
    assert all(field.name in table for field in describe())


def test_every_setting_is_a_flag(run):
    text = run("config", "show", "--help").out
    for field in describe():
        assert f"--{field.name.replace('_', '-')}" in text


def test_origins_are_named_and_the_first_wins(run, clean, monkeypatch):
    (clean / "streamapp.toml").write_text("gateway_port = 1\nflight_port = 2\nworker_port = 3\n")
    (clean / ".env").write_text("STREAMAPP_GATEWAY_PORT=4\nSTREAMAPP_FLIGHT_PORT=5\n")
    monkeypatch.setenv("STREAMAPP_GATEWAY_PORT", "6")
    shown = run("config", "show", "--json", "--store-port", "7").json
    assert (shown["store_port"]["value"], shown["store_port"]["from"]) == (7, "flag")
    assert (shown["gateway_port"]["value"], shown["gateway_port"]["from"]) == (6, "environment")
    assert shown["flight_port"]["value"] == 5
    assert shown["flight_port"]["from"].endswith(".env")
    assert shown["worker_port"]["value"] == 3
    assert shown["worker_port"]["from"].endswith("streamapp.toml")
    assert shown["terminal_port"]["from"] == "default"


def test_help_shows_values_as_they_are_typed(run):
    text = run("gateway", "--help").out
    assert "debug, info, warning or error" in text
    assert "Address the gateway binds" in text


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_secrets_are_masked(run, arguments):
    result = run("config", "show", *arguments, "--token", "s3cret")
    assert "s3cret" not in result.out
    assert "********" in result.out


@pytest.mark.parametrize("where", ["env:SHOP_TOKEN", "file:shop.token"])
def test_a_secret_as_a_flag_may_say_where_it_is(clean, monkeypatch, where):
    """What is written out there, every user of the machine sees in ps."""
    monkeypatch.setenv("SHOP_TOKEN", "s3cret")
    (clean / "shop.token").write_text("s3cret\n")
    given = []

    @command(examples=[])
    @settings_options("token")
    def verb(settings):
        given.append(settings.token)

    verb.main(["--token", where], standalone_mode=False)
    verb.main(["--token", "s3cret"], standalone_mode=False)
    assert given == ["s3cret", "s3cret"]


@pytest.mark.parametrize("where", ["env:SHOP_TOKEN", "file:shop.token"])
def test_a_secret_that_is_not_there_is_refused_with_its_place(run, where):
    refused = run("query", "select 1", "--token", where)
    assert refused.code == 2
    assert where.partition(":")[2] in refused.err


def test_a_derived_default_shows_what_it_comes_to(run, clean):
    shown = run("config", "show", "--json", "--home", "here").json
    assert shown["broker"]["value"] == f"local://{clean}/here/log"
    assert shown["db_path"]["value"] == f"{clean}/here/store.duckdb"


def test_a_corrupt_file_is_named_with_line_and_column(run, clean):
    (clean / "streamapp.toml").write_text("gateway_port = \n")
    result = run("config", "show")
    assert result.code == 2
    assert f"{clean}/streamapp.toml:1:" in result.err
