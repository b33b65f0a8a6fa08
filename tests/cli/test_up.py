"""``streamapp up``: who runs beside whom."""

import socket
from dataclasses import replace

import pytest

from streamapp.cli.up import PORTS, PROCESSES, check_ports, processes, supervisor
from streamapp.compose import mirror_app
from streamapp.core.config import load
from streamapp.core.errors import Refuse
from streamapp.screen.summary import addresses


@pytest.mark.parametrize("ring", ["c", "twin"])
def test_a_terminal_writes_the_ring(clean, ring):
    settings = replace(load()[0], ring=ring)
    assert processes(settings) == PROCESSES
    assert tuple(addresses(settings)) == PROCESSES


def test_a_worker_that_writes_the_ring_is_its_own_terminal(clean):
    settings = replace(load()[0], ring="direct")
    assert processes(settings) == ("gateway", "worker", "store")
    assert tuple(supervisor(settings).children) == processes(settings)
    assert tuple(addresses(settings)) == processes(settings)
    with pytest.raises(Refuse, match="the worker of this host writes") as caught:
        mirror_app(settings)
    assert "no terminal" in caught.value.fix


def test_a_token_reaches_the_processes_by_their_environment_alone(clean):
    """A command line is for everybody to see."""
    for child in supervisor(replace(load()[0], token="s3cret")).children.values():
        assert child.env["STREAMAPP_TOKEN"] == "s3cret"
        assert "s3cret" not in " ".join(child.argv)


def test_the_exporter_runs_where_exports_are_declared(clean):
    settings = load()[0]
    assert processes(settings, ("export",)) == (*PROCESSES, "export")
    assert tuple(supervisor(settings, extras=("export",)).children) == (*PROCESSES, "export")
    assert tuple(addresses(settings, ("export",))) == (*PROCESSES, "export")


def test_a_port_that_nobody_of_us_will_listen_on_may_be_taken(clean):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ports = dict.fromkeys(PORTS, 0) | {"terminal_port": other.getsockname()[1]}
        settings = replace(load()[0], **ports)
        with pytest.raises(Refuse, match="terminal_port"):
            check_ports(settings)
        check_ports(replace(settings, ring="direct"))
