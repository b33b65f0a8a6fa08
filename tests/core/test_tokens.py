import logging
import stat
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.core.errors import Refuse
from streamapp.core.scopes import SCOPES_MAX, Grant, Need, Verb
from streamapp.core.tokens import (
    LOOK_EVERY_S,
    TOKENS_MAX,
    Token,
    TokenFile,
    create_token,
    read_tokens,
    revoke_tokens,
)


class Clock:
    us = 1_700_000_000_000_000

    def now_us(self):
        return self.us

    def monotonic_s(self):
        return self.us / 1e6


class Impatient(Clock):
    """A tenth of a second has passed whenever it is asked."""

    s = 0.0

    def monotonic_s(self):
        self.s += LOOK_EVERY_S * 1.01
        return self.s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "home" / "tokens.json"


PRODUCE, CONSUME = (
    (lambda topic: Need(Verb.PRODUCE, topic)),
    (lambda topic: Need(Verb.CONSUME, topic)),
)
READ, ADMIN, ANY = Need(Verb.READ), Need(Verb.ADMIN), Need(Verb.ANY)
MAY = [
    ("produce:events.raw", PRODUCE("events.raw"), True),
    ("produce:events.raw", PRODUCE("events.raw2"), False),
    ("produce:events.raw", PRODUCE("eventsXraw"), False),
    ("produce:events.*", PRODUCE("events.raw"), True),
    ("produce:events.*", PRODUCE("xevents.raw"), False),
    ("produce:*.raw", PRODUCE("events.raw"), True),
    ("produce:*", PRODUCE("anything"), True),
    ("produce:*", CONSUME("anything"), False),
    ("produce:*", READ, False),
    ("produce:*", ADMIN, False),
    ("produce:a", ANY, True),
    ("produce:a", Need(Verb.DESCRIBE, "a"), True),
    ("produce:a", Need(Verb.DESCRIBE, "b"), False),
    ("consume:a", Need(Verb.DESCRIBE, "a"), True),
    ("consume:a", CONSUME(""), True),
    ("produce:a", CONSUME(""), False),
    ("consume:a", PRODUCE("a"), False),
    ("read", READ, True),
    ("read", Need(Verb.DESCRIBE, "a"), True),
    ("read", PRODUCE("a"), False),
    ("read", CONSUME("a"), False),
    ("read", ADMIN, False),
    *(("admin", need, True) for need in (PRODUCE("a"), CONSUME("a"), READ, ADMIN, ANY)),
]


@pytest.mark.parametrize(("scope", "need", "may"), MAY)
def test_a_scope_allows_what_it_says(scope, need, may):
    assert Grant.of("t", [scope]).may(need) is may


def test_scopes_add_up():
    grant = Grant.of("t", ["produce:a", "produce:b.*", "read"])
    assert [grant.may(need) for need in (PRODUCE("a"), PRODUCE("b.c"), PRODUCE("c"), READ)] == [
        True, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "scope",
    ["", "produce", "produce:", "produce:a b", "produce:ä", "write:a", "Read", "admin:", "read:a",
     "produce:a|b", "produce:" + "a" * 250, "produce:[a]", "produce:a?"],
)  # fmt: skip
def test_what_is_no_scope_is_refused(scope):
    with pytest.raises(Refuse, match="is no scope") as refused:
        Grant.of("t", [scope])
    assert "produce:TOPIC" in refused.value.fix


@pytest.mark.parametrize("count", [0, SCOPES_MAX + 1])
def test_scopes_are_bounded(count):
    with pytest.raises(Refuse, match=f"{count} scopes"):
        Grant.of("t", [f"produce:t{n}" for n in range(count)])


@given(st.text("ab*", min_size=1, max_size=12), st.text("ab", max_size=12))
def test_a_star_is_any_characters(pattern, topic):
    def fits(pattern, topic):
        if not pattern:
            return not topic
        if pattern[0] == "*":
            return fits(pattern[1:], topic) or (bool(topic) and fits(pattern, topic[1:]))
        return bool(topic) and topic[0] == pattern[0] and fits(pattern[1:], topic[1:])

    expected = fits(pattern, topic) if topic else True  # "" is any topic
    assert Grant.of("t", [f"produce:{pattern}"]).may(PRODUCE(topic)) is expected


def test_no_topic_makes_a_pattern_slow():
    grant = Grant.of("t", ["produce:" + "*a" * 60 + "b"])
    assert not grant.may(PRODUCE("a" * 249))  # a minute's worth of backtracking, were there any


def test_a_token_is_found_by_its_secret_alone(path):
    made, secret = create_token(path, "shop", ["produce:a", "produce:a", "read"])
    file = TokenFile(path)
    assert file.find(secret).name == "shop"
    assert file.find(secret).scopes == ("produce:a", "read")
    for wrong in ("", secret[:-1], secret + "x", secret.swapcase(), made.id, made.sha256, "\udcff"):
        assert file.find(wrong) is None, wrong
    other = secret.replace(made.id, "0" * 12)
    assert file.find(other) is None


def test_the_file_has_no_secret_and_is_its_owner_s_alone(path):
    _, secret = create_token(path, "shop", ["read"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert secret not in text
    assert secret.split("_", 2)[2] not in text
    assert list(path.parent.iterdir()) == [path]  # nothing is left beside it


def test_what_is_created_and_revoked_holds_as_soon_as_the_file_is_looked_at(path):
    file = TokenFile(path, Impatient())
    assert not file.asked
    _, first = create_token(path, "first", ["read"])
    assert file.asked
    assert file.find(first)
    second_made, second = create_token(path, "second", ["read"])
    assert file.find(second)
    assert [gone.name for gone in revoke_tokens(path, ["first"])] == ["first"]
    assert file.find(first) is None
    assert file.find(second)
    revoke_tokens(path, [second_made.id])
    assert file.find(second) is None


def test_the_file_is_looked_at_ten_times_a_second_and_not_with_every_request(path):
    clock = Clock()
    file = TokenFile(path, clock)
    _, secret = create_token(path, "a", ["read"])
    clock.us += 99_000
    assert not file.asked
    clock.us += 2_000
    assert file.asked
    assert file.find(secret)


def test_neither_the_last_token_nor_the_file_opens_the_door_when_it_goes(path):
    file = TokenFile(path, Impatient())
    create_token(path, "only", ["read"])
    assert file.asked
    revoke_tokens(path, ["only"])
    assert file.asked
    assert TokenFile(path).asked
    path.unlink()
    assert file.asked
    assert not TokenFile(path).asked  # a process that starts then never asked anybody


def test_a_token_s_time_ends(path):
    clock = Clock()
    made, secret = create_token(path, "brief", ["read"], lasts_s=60, clock=clock)
    assert made.expires_ms - made.created_ms == 60_000
    file = TokenFile(path, clock)
    clock.us += 59_999_000
    assert file.find(secret)
    clock.us += 1_000
    assert file.find(secret) is None


def test_names_are_unique_and_plain(path):
    create_token(path, "shop", ["read"])
    with pytest.raises(Refuse, match="already") as refused:
        create_token(path, "shop", ["admin"])
    assert "token revoke shop" in refused.value.fix
    for name in ("", "a b", "-a", "a" * 65, "ä", "a/b", "a\n"):
        with pytest.raises(Refuse, match="is no name"):
            create_token(path, name, ["read"])
    assert [token.name for token in read_tokens(path)] == ["shop"]


def test_revoking_is_all_or_nothing(path):
    create_token(path, "a", ["read"])
    with pytest.raises(Refuse, match="no token is called 'b'"):
        revoke_tokens(path, ["a", "b"])
    assert [token.name for token in read_tokens(path)] == ["a"]


def write(path, content, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


ONE = Token("a", "0" * 12, "00" * 32, ["read"], 0)
BROKEN = [
    b"", b"{", b"[]", b"\xff", b'{"version":2}', b'{"tokens":[{}]}', b'{"tokens":[],"x":1}',
    b"[" * 5000,
    msgspec.json.encode({"tokens": [msgspec.structs.replace(ONE, sha256="00")]}),
    msgspec.json.encode({"tokens": [msgspec.structs.replace(ONE, sha256="x" * 64)]}),
    msgspec.json.encode({"tokens": [msgspec.structs.replace(ONE, scopes=["all"])]}),
]  # fmt: skip


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_is_refused_and_never_written_over(path, content):
    write(path, content)
    for use in (TokenFile, read_tokens, lambda where: create_token(where, "x", ["read"])):
        with pytest.raises(Refuse, match="is no file of tokens") as refused:
            use(path)
        assert refused.value.code == "token.file"
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_file_that_others_may_touch_is_refused(path, mode):
    write(path, b"{}", mode)
    with pytest.raises(Refuse, match=f"mode 0{mode:o}") as refused:
        TokenFile(path)
    assert "chmod 600" in refused.value.fix


def test_a_file_that_breaks_lets_nobody_in_and_is_told_once(path, caplog):
    caplog.set_level(logging.ERROR, "streamapp.tokens")
    _, secret = create_token(path, "a", ["read"])
    good = path.read_bytes()
    file = TokenFile(path, Impatient())
    assert file.find(secret)
    write(path, b"{")
    for _ in range(3):
        assert file.find(secret) is None
        assert file.asked
    assert caplog.text.count("no token of the file is good") == 1
    write(path, good)
    assert file.find(secret)


def test_too_many_tokens_are_refused(path):
    many = [msgspec.structs.replace(ONE, name=f"t{n}", id=f"{n:012x}") for n in range(TOKENS_MAX)]
    write(path, msgspec.json.encode({"tokens": many}))
    with pytest.raises(Refuse, match="1,000 tokens already"):
        create_token(path, "more", ["read"])


CREATE_SOME = """
import sys
from pathlib import Path
from streamapp.core.tokens import create_token
for n in range(10):
    create_token(Path(sys.argv[1]), f"{sys.argv[2]}-{n}", ["read"])
"""


def test_processes_that_write_at_once_lose_nothing(path):
    commands = [[sys.executable, "-c", CREATE_SOME, str(path), who] for who in "ab"]
    writers = [subprocess.Popen(command) for command in commands]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(read_tokens(path)) == 20
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refuse, match="file"):
        create_token(tmp_path / "file" / "tokens.json", "a", ["read"])
