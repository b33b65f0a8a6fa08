"""The C protocol between two processes, without Python: here, and on aarch64 by emulation."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "streamapp" / "ring"
#: A reader that misses its wake-up sleeps so long: an hour, so that it is seen.
SLICE_NS = 3_600_000_000_000
COMPILERS = {"here": "cc", "aarch64": "aarch64-linux-gnu-gcc"}
LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=list(COMPILERS))
def protocol(request, tmp_path_factory):
    """Runs the program of protocol.c with these arguments; the numbers that it prints."""
    emulator, compiler = [], COMPILERS[request.param]
    if request.param != "here" and platform.machine() != request.param:
        emulator = [f"qemu-{request.param}"]
    for needed in (compiler, *emulator):
        if shutil.which(needed) is None:
            pytest.skip(f"the ring on {request.param}: {needed} is not installed")
    binary = tmp_path_factory.mktemp("protocol") / "protocol"
    sources = [Path(__file__).parent / "programs" / "protocol.c", ENGINE / "_protocol.c"]
    includes = [f"-I{ROOT / 'include'}", f"-I{ENGINE}"]
    options = ["-std=gnu11", "-O2", "-static", f"-DEVRING_WAIT_SLICE_NS={SLICE_NS}"]
    subprocess.run([compiler, *options, *includes, "-o", binary, *sources], check=True)

    def run(*arguments, timeout=100):
        command = [*emulator, str(binary), *map(str, arguments)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
        return [int(number) for number in done.stdout.split()]

    return run


@pytest.mark.parametrize("frames", [100_000, pytest.param(10_000_000, marks=LONG)])
@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("capacity", [1, 2, 64, 4096])
def test_no_torn_row_is_accepted(protocol, capacity, batch, frames):
    accepted, torn, lost, void = protocol("tear", capacity, frames, batch, timeout=3000)
    assert (torn, void) == (0, 0)
    assert accepted > 0
    assert accepted + lost >= frames


@pytest.mark.parametrize("capacity", [1, 2, 64, 4096])
def test_the_control_without_protection_is_torn(protocol, capacity):
    assert protocol("control", capacity, 60)[0] > 0, "the test above cannot see what it is for"


@pytest.mark.parametrize("rounds", [1_000, pytest.param(100_000, marks=LONG)])
def test_no_wake_up_is_missed(protocol, rounds):
    """Rows come sooner and later than a reader falls asleep; a missed one is a hang, not a delay."""
    assert protocol("wake", rounds, 7, timeout=100 if rounds < 10_000 else 3000) == [rounds]


@pytest.mark.skipif(
    platform.machine() != "aarch64",
    reason="the ring on a weakly ordered CPU: emulation on x86 keeps the order of stores",
)
def test_this_cpu_is_weakly_ordered():
    """Then all tests of this room have run on one."""
    assert platform.machine() == "aarch64"
