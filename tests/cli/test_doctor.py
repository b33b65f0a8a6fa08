"""``streamapp doctor``: what is wrong is named with the way to mend it."""

import errno
import resource
import socket
from pathlib import Path
from unittest.mock import Mock

import pytest
from sites import Handler, Site

from streamapp.cli import checks
from streamapp.cli.doctor import _hanging
from streamapp.core.config import Settings
from streamapp.flight import FlightServer
from streamapp.ring import RingSpec, RingWriter
from streamapp.topics.catalogue import load

PORTS = ("gateway", "flight", "worker", "store", "terminal")


@pytest.fixture
def doctor(run, tmp_path):
    """``streamapp doctor`` on free ports, with a ring and a model cache of its own."""
    fixed = ["--ring-path", tmp_path / "ring", "--models-cache", tmp_path / "cache"]
    for name in PORTS:
        fixed += [f"--{name}-port", str(free_port())]

    def call(*arguments):
        result = run("doctor", "--json", *fixed, *arguments)
        return result.code, {check["name"]: check for check in result.json}

    return call


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_new_machine_has_nothing_that_fails(doctor, tmp_path):
    code, found = doctor()
    assert code == 0
    assert not [check for check in found.values() if check["status"] == "fail"]
    assert found["models"]["status"] == "warn"
    assert found["models"]["fix"] == "streamapp models pull"
    assert all(check["fix"] for check in found.values() if check["status"] != "ok")
    assert not (tmp_path / "home").exists(), "it changes nothing"


def test_it_prints_a_line_each_and_how_to_mend(run):
    result = run("doctor", "--models-cache", "nowhere")
    assert "ok    python" in result.out
    assert "mend: streamapp models pull" in result.out


def test_a_variable_that_is_no_setting(doctor, monkeypatch):
    assert doctor()[1]["settings"]["status"] == "ok"
    monkeypatch.setenv("STREAMAPP_GATEWAY_PROT", "9000")
    code, found = doctor()
    assert code == 0
    assert found["settings"]["status"] == "warn"
    assert found["settings"]["detail"] == "no setting: STREAMAPP_GATEWAY_PROT"
    assert "did you mean STREAMAPP_GATEWAY_PORT?" in found["settings"]["fix"]


def test_topics(run, doctor):
    run("topics", "apply")
    _, found = doctor()
    assert found["topics"] == {
        "name": "topics",
        "status": "ok",
        "detail": f"{len(load().topics)} on the log, as declared",
        "fix": "",
    }


def test_missing_topics(doctor, tmp_path):
    (tmp_path / "home/log").mkdir(parents=True)
    _, found = doctor()
    assert found["topics"]["status"] == "warn"
    assert "events.raw" in found["topics"]["detail"]
    assert found["topics"]["fix"] == "streamapp topics apply"


def test_topics_of_another_shape(run, doctor, clean):
    run("topics", "apply")
    folder = clean / "topics"
    folder.mkdir()
    for path in checks.catalogue.load().folder.glob("events.*.toml"):
        text = path.read_text().replace("partitions = 4", "partitions = 8")
        (folder / path.name).write_text(text)
    code, found = doctor("--topics-dir", folder)
    assert code == 1
    assert "events.raw has 4 partitions, 8 are declared" in found["topics"]["detail"]


def test_a_port_that_another_program_uses(doctor):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        code, found = doctor("--worker-port", str(port))
    assert code == 1
    assert found["worker port"]["status"] == "fail"
    assert "STREAMAPP_WORKER_PORT" in found["worker port"]["fix"]


def test_a_port_that_we_use(doctor):
    class Ours(Handler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"# HELP streamapp_queries_total\n")

    with Site(Ours) as server:
        code, found = doctor("--store-port", str(server.server_port))
    assert code == 0
    assert "is served by streamapp" in found["store port"]["detail"]


def test_a_home_that_cannot_be_written(doctor, clean):
    (clean / "file").write_text("")
    code, found = doctor("--home", "file")
    assert code == 1
    assert "STREAMAPP_HOME" in found["home"]["fix"]


def test_a_corrupt_catalogue_is_named(doctor, clean):
    (clean / "topics").mkdir()
    (clean / "topics/a.toml").write_text("name =\n")
    code, found = doctor("--topics-dir", "topics")
    assert code == 1
    assert "a.toml:1:" in found["broker"]["detail"]


@pytest.mark.parametrize(
    ("content", "detail"),
    [("[workflow\n", ":1:10"), ('[workflow]\nstages = ["nope"]\n', "not installed: nope")],
)
def test_a_workflow_that_cannot_run(doctor, clean, content, detail):
    (clean / "topics").mkdir()
    (clean / "topics" / "workflow.toml").write_text(content)
    code, found = doctor("--topics-dir", "topics")
    assert code == 1
    assert found["workflow"]["status"] == "fail"
    assert detail in found["workflow"]["detail"]


def test_a_store_that_asks_for_another_token(doctor):
    port = free_port()
    with FlightServer(Mock(), port=port, token="other"):
        _, found = doctor("--flight-port", str(port))
    assert found["flight port"]["status"] == "warn"
    assert "STREAMAPP_TOKEN" in found["flight port"]["fix"]


def test_the_ring(doctor, tmp_path):
    with RingWriter.open(tmp_path / "ring", RingSpec(8, 64)):
        code, found = doctor()
        assert "written by pid" in found["ring"]["detail"]
    assert code == 0
    (tmp_path / "ring").write_bytes(b"not a ring")
    code, found = doctor()
    assert code == 1
    assert "not a ring" in found["ring"]["detail"]


def test_a_ring_in_another_user_s_folder(monkeypatch, tmp_path):
    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", refused)
    (check,) = checks.check_ring(Settings(ring_path=tmp_path / "ring"))
    assert (check.status, check.detail) == (
        "fail",
        f"cannot look at {tmp_path / 'ring'}: permission denied",
    )
    assert "STREAMAPP_RING_PATH" in check.fix


def test_a_path_that_may_not_be_looked_at_fails_its_check_only(monkeypatch):
    def refused(_settings):
        raise PermissionError(errno.EACCES, "Permission denied", "/secret")

    monkeypatch.setattr(checks, "CHECKS", {"home": refused, "python": checks.check_python})
    home, python = checks.run_checks(Settings())
    assert (home.name, home.status, home.detail) == ("home", "fail", "/secret: Permission denied")
    assert python.status == "ok"


def test_manifests_that_are_not_there(doctor):
    code, found = doctor("--models-dir", "nowhere")
    assert code == 1
    assert "nowhere" in found["models"]["detail"]


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_a_model_cache_that_no_pull_can_write(doctor, clean, cache):
    (clean / "file").touch()
    code, found = doctor("--models-cache", cache)
    assert code == 1
    assert found["models"]["status"] == "fail"
    assert found["models"]["detail"].endswith(f"cannot write to {clean / 'file'}: Not a directory")
    assert "STREAMAPP_MODELS_CACHE" in found["models"]["fix"]


def test_an_embedder_of_one_s_own(doctor, clean):
    (clean / "bge.onnx").write_bytes(b"x")
    (clean / "tokenizer.json").write_bytes(b"{}")
    _, found = doctor("--embedding-model", "bge.onnx")
    assert found["models"]["status"] == "ok"
    code, found = doctor("--embedding-model", "bgee.onnx")
    assert code == 1
    assert "bgee.onnx" in found["models"]["detail"]


@pytest.mark.parametrize(("free", "status"), [(1, "fail"), (1 << 30, "warn"), (1 << 40, "ok")])
def test_disk(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _path: _Usage(free))
    found = {check.name: check for check in checks.check_home(Settings(home=tmp_path))}
    assert found["disk"].status == status


class _Usage:
    def __init__(self, free):
        self.free = free


def test_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (256, 4096))
    (check,) = checks.check_files(Settings())
    assert (check.status, check.fix) == ("warn", "ulimit -n 4096")


def test_a_clock_that_was_never_set(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "now_us", lambda: 0)
    found = {check.name: check for check in checks.check_home(Settings(home=tmp_path))}
    assert found["clock"].status == "fail"


def test_a_long_line_goes_on_under_its_own_beginning(monkeypatch):
    monkeypatch.setattr("streamapp.cli.doctor.terminal_columns", lambda: 60)
    lines = f"{'':20}{_hanging('one two three ' * 10)}".splitlines()
    assert len(lines) > 1
    assert all(
        len(line) <= 60 and line[:20].isspace() and line[20] == line[20:].strip()[0]
        for line in lines
    )
