"""A server that speaks S3, for tests: moto, from an environment of its own.

Moto needs versions of botocore's dependencies that ours are not, so it is installed under the cache
once, by pip.
"""

import subprocess
import urllib.request
import venv
from pathlib import Path

import pytest

REQUIREMENTS = ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
HOME = Path("~/.cache/streamapp").expanduser() / "s3-server-5.2.5"
SERVE = """
import threading
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


def _python():
    """The interpreter of moto's environment, which is made when it is missing."""
    python = HOME / "bin" / "python"
    done = HOME / "done"
    if not done.exists():
        venv.create(HOME, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "--quiet", *REQUIREMENTS]
        installed = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300
        )
        if installed.returncode:
            pytest.skip(f"S3: no moto: {installed.stderr.strip().splitlines()[-1]}")
        done.touch()
    return python


@pytest.fixture(scope="session")
def s3_server():
    """The URL of a server with one bucket, ``tests``."""
    with subprocess.Popen(
        [_python(), "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/tests", method="PUT")).close()
        yield url
        server.kill()


def environment(url):
    """What our driver reads."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
    }
