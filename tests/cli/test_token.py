import json

import pytest

from streamapp.core.tokens import TokenFile


@pytest.fixture
def path(clean):
    return clean.parent / "home" / "tokens.json"


def test_a_token_is_shown_once_and_works(run, path):
    made = run("token", "create", "shop", "--scope", "produce:events.*", "--expires", "30d")
    assert made.code == 0
    secret = made.out.strip()
    assert TokenFile(path).find(secret).name == "shop"
    assert "shop may produce:events.*, until 20" in made.err
    assert "from now on everybody is asked" in made.err
    listed = run("token", "list")
    assert "shop" in listed.out
    assert "produce:events.*" in listed.out
    assert secret not in listed.out
    again = run("token", "create", "lake", "--scope", "read")
    assert "from now on" not in again.err


def test_json_is_for_scripts(run, path):
    made = run("token", "create", "ops", "--scope", "admin", "--scope", "read", "--json").json
    assert made["scopes"] == ["admin", "read"]
    assert (made["expires"], made["expired"]) == (None, False)
    assert TokenFile(path).find(made["token"]).admin
    [listed] = run("token", "list", "--json").json
    assert "token" not in listed
    assert listed == {name: value for name, value in made.items() if name != "token"}
    assert run("token", "revoke", "ops", "--json").json == [listed]
    assert run("token", "list", "--json").json == []
    assert TokenFile(path).find(made["token"]) is None


def test_revoking_is_by_name_or_id_and_all_or_nothing(run, path):
    for name in "abc":
        run("token", "create", name, "--scope", "read")
    identity = run("token", "list", "--json").json[0]["id"]
    wrong = run("token", "revoke", "b", "nobody")
    assert wrong.code == 2
    assert "no token is called 'nobody'" in wrong.err
    assert len(run("token", "list", "--json").json) == 3
    assert run("token", "revoke", identity, "b").out == "revoked  a\nrevoked  b\n"
    assert [each["name"] for each in run("token", "list", "--json").json] == ["c"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a"], "Missing option '--scope'"),
        (["a", "--scope", "everything"], "'everything' is no scope"),
        (["a b", "--scope", "read"], "'a b' is no name"),
        (["a", "--scope", "read", "--expires", "3y"], "'3y' is no time; write 90s"),
        (["a", "--scope", "read", "--expires", "0d"], "'0d' is no time"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_made(run, path, arguments, said):
    wrong = run("token", "create", *arguments)
    assert (wrong.code, wrong.out) == (2, "")
    assert said in wrong.err
    assert not path.exists()


def test_errors_are_json_too(run):
    run("token", "create", "a", "--scope", "read")
    error = run("token", "create", "a", "--scope", "read", "--json").json["error"]
    assert error["code"] == "token.exists"
    assert "token revoke a" in error["fix"]


def test_nothing_is_made_by_looking(run, path):
    assert run("token", "list", "--json").json == []
    assert not path.parent.exists()


def test_a_token_whose_time_is_over_says_so(run, path):
    run("token", "create", "a", "--scope", "read", "--expires", "1s")
    content = json.loads(path.read_text())
    content["tokens"][0]["expires_ms"] = 1
    path.write_text(json.dumps(content))
    assert "1970-01-01T00:00:00Z (over)" in run("token", "list").out
    assert run("token", "list", "--json").json[0]["expired"] is True
