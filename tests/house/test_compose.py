"""docker/compose.yaml says what this project understands; running it takes a Docker."""

import re
import shutil
import subprocess

import pytest
import yaml
from kafka_jars import POM

from streamapp.cli.app import VERBS
from streamapp.core.config import describe, env_name


@pytest.fixture
def services(root):
    return yaml.safe_load((root / "docker" / "compose.yaml").read_text())["services"]


@pytest.fixture
def ours(services):
    return {name: service for name, service in services.items() if "build" in service}


@pytest.fixture
def dockerfile(root):
    return (root / "docker" / "Dockerfile").read_text()


def test_every_process_is_there_and_every_command_is_a_verb(services, ours):
    assert {"gateway", "worker", "store", "terminal"} < set(ours)
    assert set(services) - set(ours) == {"kafka"}
    assert {service["command"][0] for service in ours.values()} <= set(VERBS)
    assert services["worker"]["deploy"]["replicas"] == 2


def test_kafka_is_the_version_that_the_tests_run_on(services):
    version = re.search(r"<kafka.version>(.+?)</", POM.read_text())[1]
    assert services["kafka"]["image"] == f"apache/kafka:{version}"


def test_settings_exist_and_the_broker_is_the_service(services, ours, dockerfile):
    known = {env_name(field.name) for field in describe()}
    named = {name for service in ours.values() for name in service["environment"]}
    assert named | set(re.findall(r"\bSTREAMAPP_\w+", dockerfile)) <= known
    assert (
        "PLAINTEXT://kafka:9092" in services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    for service in ours.values():
        assert service["environment"]["STREAMAPP_BROKER"] == "kafka+batch://kafka:9092"


def test_every_anchor_is_used(root):
    text = (root / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"&(\w+)", text)) == set(re.findall(r"\*(\w+)", text))


def test_a_broker_that_runs_is_asked_seldom(services):
    check = services["kafka"]["healthcheck"]
    assert (check["start_interval"], check["interval"]) == ("5s", "60s")
    assert check["start_period"]  # without it there is no start_interval


def test_ports_are_for_this_host_only(services):
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_dependencies_and_volumes_are_declared(root, services):
    volumes = yaml.safe_load((root / "docker" / "compose.yaml").read_text())["volumes"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        assert {mount.partition(":")[0] for mount in service.get("volumes", ())} <= set(volumes)


def test_the_image_is_built_from_files_that_are_here(root, ours, dockerfile):
    for service in ours.values():
        assert (root / "docker" / service["build"]["context"]).resolve() == root
        assert (root / service["build"]["dockerfile"]).is_file()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    assert copied
    for path in " ".join(copied).split():
        assert (root / path).exists(), path


def test_docker_takes_it(root):
    if shutil.which("docker") is None or run("docker", "compose", "version").returncode:
        pytest.skip("docker compose: not on this machine; only its file's structure is checked")
    file = root / "docker" / "compose.yaml"
    checked = run("env", "STREAMAPP_TOKEN=x", "docker", "compose", "--file", file, "config", "-q")
    assert checked.returncode == 0, checked.stderr


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
