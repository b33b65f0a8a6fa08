"""What ``[exports.NAME]`` may say, and what clients may change of it."""

import base64
import time

import pytest
from standardwebhooks import Webhook

from streamapp.core.errors import Refuse, Reject
from streamapp.core.exports import Changes, checked_changes, declared_exports, is_allowed
from streamapp.core.signing import key_of, signed_headers

SECRET = "whsec_" + base64.b64encode(b"0123456789").decode()
URL = "https://hooks.example.com/in"


def declared(name="default", **table):
    table = {"webhook_url": URL, "secrets": ["env:A"]} | table
    return declared_exports({name: table}, lambda _: SECRET)[name]


def test_the_defaults():
    export = declared()
    assert (export.webhook_url, export.where, export.batch_size) == (URL, "true", 100)
    assert (export.group, export.begin) == ("streamapp-export-default", "now")
    assert SECRET not in repr(export)
    assert "0123456789" not in repr(export)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"colour": 1}, "colour"),
        ({"webhook_url": "ftp://example.com"}, "http:// or https://"),
        ({"webhook_url": "https://me:secret@example.com"}, "user or a password"),
        ({"webhook_url": "https://example.com/a b"}, "printable"),
        ({"webhook_url": "https://example.com:99999/"}, "cannot be read"),
        ({"webhook_url": ""}, "no webhook_url"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1001}, "batch_size is 1001"),
        ({"interval_ms": -1}, "interval_ms is -1"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": float("nan")}, "timeout_s is nan"),
        ({"attempts_max": -1}, "attempts_max is -1"),
        ({"ontology_iri": "shop"}, "absolute IRI"),
        ({"ontology_iri": 'https://x/">'}, "absolute IRI"),
        ({"begin": "yesterday"}, "begin"),
    ],
)
def test_what_makes_no_sense_is_refused(table, said):
    with pytest.raises(Refuse, match=r"\[exports\.default\]") as caught:
        declared(**table)
    assert said in caught.value.message
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("secrets", [[], ["a"] * 9])
def test_one_to_eight_secrets(secrets):
    with pytest.raises(Refuse) as caught:
        declared(secrets=secrets)
    assert caught.value.code == "export.secret"


def test_a_secret_that_is_none_is_not_repeated():
    with pytest.raises(Refuse) as caught:
        declared_exports({"a": {"webhook_url": URL, "secrets": ["env:A"]}}, lambda _: "hunter2!")
    assert "hunter2" not in str(caught.value)


def test_only_the_default_one_may_be_changed_by_clients():
    with pytest.raises(Refuse, match="alone clients may change"):
        declared("crm", allow=["https://example.com/"])
    assert declared(webhook_url="", allow=["https://example.com/"]).webhook_url == ""


ALLOW = ("https://hooks.example.com/a/", "http://10.0.0.7:8080")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        (URL, True),
        ("https://hooks.example.com/a/b?c=d", True),
        ("https://HOOKS.example.com:443/a/", True),
        ("https://hooks.example.com/a", True),
        ("https://hooks.example.com/ab", False),
        ("https://hooks.example.com/a/../b", False),
        ("https://hooks.example.com/a/%2e%2E/b", False),
        ("https://hooks.example.com/a/..%2fb", False),
        ("https://hooks.example.com/a/..%5Cb", False),
        ("https://hooks.example.com/a/.%252e/b", False),
        ("https://hooks.example.com/a/..;/b", False),
        ("https://hooks.example.com/a/x%2ey..z", True),
        ("http://hooks.example.com/a/b", False),
        ("https://hooks.example.com:444/a/b", False),
        ("https://hooks.example.com.evil.org/a/b", False),
        ("https://evil.org/https://hooks.example.com/a/", False),
        ("http://10.0.0.7:8080/anything", True),
        ("http://10.0.0.7/anything", False),
        ("http://169.254.169.254/latest", False),
    ],
)
def test_a_client_s_url_must_be_one_that_the_project_allows(url, allowed):
    export = declared(allow=list(ALLOW))
    assert is_allowed(url, export) is allowed
    if allowed:
        assert checked_changes({"webhook_url": url}, export).webhook_url == url
    else:
        with pytest.raises(Reject, match="this project allows") as caught:
            checked_changes({"webhook_url": url}, export)
        assert caught.value.code == "export.url_not_allowed"


@pytest.mark.parametrize(
    "values",
    [
        {"webhook_url": "file:///etc/passwd"},
        {"webhook_url": "https://hooks.example.com\\@evil.org/a/"},
        {"webhook_url": 7},
        {"ontology_iri": "urn:\x00"},
        {"ontology_iri": "nope"},
        {"batch_size": "5"},
        {"batch_size": 0},
        {"interval_ms": 10**9},
    ],
)
def test_changes_that_make_no_sense_are_rejected(values):
    with pytest.raises(Reject) as caught:
        checked_changes(values, declared(allow=list(ALLOW)))
    assert caught.value.code == "export.config"


def test_changes_are_laid_over_and_taken_back():
    export = declared(allow=list(ALLOW), batch_size=9)
    changes = Changes().merged({"batch_size": 3, "ontology_iri": "urn:x:", "other": 1})
    changed = export.with_changes(changes)
    assert (changed.batch_size, changed.ontology_iri, changed.webhook_url) == (3, "urn:x:", URL)
    assert export.with_changes(changes.merged({"batch_size": None})).batch_size == 9
    assert export.with_changes(Changes(webhook_url="")).webhook_url == ""
    assert Changes.decode(b'{"batch_size":3,"new":1}') == Changes(batch_size=3)


def test_the_public_library_verifies_with_either_secret():
    keys = [key_of(SECRET), b"old key"]
    headers = signed_headers(keys, "msg_1", int(time.time()), b"{}")
    for key in keys:
        Webhook(base64.b64encode(key).decode()).verify(b"{}", headers)
    with pytest.raises(Exception, match="signature"):
        Webhook(base64.b64encode(b"other").decode()).verify(b"{}", headers)
