"""What a run that ended early had read from the network is not read again by ``resume``."""

import pytest
from sites import Handler, Site

from streamapp.workflow.run.cache import Cache
from streamapp.workflow.run.engine import Services, run
from streamapp.workflow.run.record import find_record


@pytest.fixture
def server():
    """Answers with what ``rows`` holds, and counts."""

    class Rows(Handler):
        def do_GET(self):
            self.server.asked += 1
            body = self.server.rows.encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with Site(Rows) as made:
        made.rows, made.asked = '[{"n": 1}, {"n": 2}]', 0
        yield made


def test_rows_of_the_network_stay_those_of_the_run(project, server):
    url = f"http://127.0.0.1:{server.server_port}/rows"
    graph = project.graph(
        {"operation": "flaky", "config": {"log": "calls", "fails": 1}},
        inputs={"rows": {"type": "http", "url": url}},
    )
    assert project.run(graph).error.code == "lab.away"
    server.rows = '[{"n": 5}]'
    asked = server.asked
    record = find_record(Cache(project.cache))
    assert record.state == "failed"
    services = Services(cache=project.cache)
    report = run(graph, folder_out=project.out, services=services, resumed=record)
    assert report.state == "done", report.error
    assert report.run == record.run
    assert report.part("rows").why == "the run that is resumed had read it"
    assert project.result() == [{"n": 1}, {"n": 2}]
    read_again = server.asked - asked  # its columns are looked at, its rows are not read
    project.run(graph)
    assert project.result() == [{"n": 5}]
    assert server.asked - asked > read_again
