"""What the machine may refuse a ring: room in the folder, permission, address space."""

import errno
import os
import shutil
import subprocess
import sys

import pytest

from streamapp.core.errors import Refuse
from streamapp.ring import RingSpec, RingWriter, files

SPEC = RingSpec(3, 16)


@pytest.fixture
def ring(shm):
    RingWriter.open(shm / "ring", SPEC).close()
    return shm / "ring"


def test_a_full_file_system_is_told_at_the_start(shm, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(Refuse, match="no space is left") as caught:
        RingWriter.open(shm / "ring", SPEC)
    assert "--shm-size" in caught.value.fix
    assert [path.name for path in shm.iterdir()] == ["ring.lock"]


def test_a_full_tmpfs_is_told_at_the_start(shm):
    """As above, with a file system that really is full."""
    if shutil.which("mount") is None:
        pytest.skip("no tmpfs can be mounted here: there is no mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "tmpfs", str(shm)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(Refuse, match="no space is left") as caught:
            RingWriter.open(shm / "ring", RingSpec(384, 64))
        assert caught.value.code == "ring.file"
        assert [path.name for path in shm.iterdir()] == ["ring.lock"]
        RingWriter.open(shm / "ring", RingSpec(3, 16)).close()
    finally:
        subprocess.run(["umount", str(shm)], check=True)


AS_NOBODY = """
import os, sys
from streamapp.core.errors import Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for opens in (RingReader.open, lambda path: RingWriter.open(path, RingSpec(3, 16))):
    try:
        opens(sys.argv[1])
    except Refuse as error:
        print(error.code, error.message, error.fix, sep="|")
"""


def test_no_permission_is_told_with_the_way_out(ring):
    ring.parent.chmod(0o755 if os.geteuid() == 0 else 0o550)
    for path in (ring, files.lock_path(ring)):
        path.chmod(0o600 if os.geteuid() == 0 else 0)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, ring], capture_output=True, text=True, check=True
    )
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for code, message, fix in lines:
        assert code == "ring.file"
        assert message.startswith(f"cannot open {ring}")
        assert "permission denied" in message
        assert "join the group" in fix
        assert "run as the folder's owner" in fix


NO_ROOM = """
import resource, sys
from streamapp.core.errors import Refuse
from streamapp.ring import RingReader, RingSpec, RingWriter
writer = RingWriter.open(sys.argv[1], RingSpec(1024, 4096))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20),) * 2)
try:
    RingReader.open(sys.argv[1], engine=sys.argv[2])
except Refuse as error:
    print(error.code, error.message, sep="|")
"""


def test_no_address_space_is_told(shm, engine):
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, shm / "ring", engine],
        capture_output=True,
        text=True,
        check=True,
    )
    code, message = done.stdout.strip().split("|")
    assert code == "ring.memory"
    assert "Cannot allocate memory" in message
