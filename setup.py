"""What pyproject.toml cannot say: the C extensions, and the data folders a wheel carries."""

import shutil
from pathlib import Path

import numpy as np
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
RING, TOPICS, KAFKA = "streamapp/ring", "streamapp/topics", "streamapp/transport/kafka"
LOCAL, SINK = "streamapp/transport/local", "streamapp/sink"
PACKED = "streamapp/core/_packed.h"
#: Data at the root, below `streamapp/_defaults/` in a wheel.
DATA = ("topics/**/*", "models/**/*", "examples/messages.csv")


class BuildExt(build_ext):
    """Says in one line what to install when there is no C compiler."""

    def build_extensions(self) -> None:
        compiler = str(self.compiler.compiler[0])
        if shutil.which(compiler) is None:
            raise SystemExit(
                "streamapp.ring, .topics, .sink and .transport: each needs a C compiler and"
                f" {compiler!r} is not on PATH: install one"
                " (Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev)"
            )
        super().build_extensions()


class BuildPy(build_py):
    """Copies the data folders into the wheel; in the source tree they stay where they are."""

    def _data(self) -> list[Path]:
        files = (path for pattern in DATA for path in HERE.glob(pattern) if path.is_file())
        return sorted(path.relative_to(HERE) for path in files)

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for path in self._data():
            target = Path(self.build_lib, "streamapp", "_defaults", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(HERE / path), str(target))

    def get_source_files(self) -> list[str]:
        """What an sdist must hold for the wheel to be built from it."""
        return [*super().get_source_files(), *map(str, self._data())]


def extension(name: str, sources: list[str], depends: list[str]) -> Extension:
    """For every Python from 3.11 on: the stable interface only."""
    return Extension(
        name,
        sources,
        depends=depends,
        include_dirs=["include", np.get_include()],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
        py_limited_api=True,
    )


setup(
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=[
        extension(
            "streamapp.ring._ring",
            [
                f"{RING}/{name}.c"
                for name in ("_ring", "_writing", "_buffers", "_mirror", "_protocol")
            ],
            [
                "include/streamapp_ring.h",
                *sorted(f"{RING}/{header.name}" for header in (HERE / RING).glob("*.h")),
            ],
        ),
        extension(
            "streamapp.topics._scan",
            [f"{TOPICS}/{name}.c" for name in ("_scan", "_arrow", "_events", "_event", "_json")],
            [PACKED, *(f"{TOPICS}/_{name}.h" for name in ("events", "event", "json"))],
        ),
        extension(
            "streamapp.topics._stamp",
            [
                f"{TOPICS}/{name}.c"
                for name in ("_stamp", "_records", "_envelope", "_event", "_json")
            ],
            [PACKED, *(f"{TOPICS}/_{name}.h" for name in ("records", "envelope", "event", "json"))],
        ),
        extension("streamapp.sink._keys", [f"{SINK}/_keys.c"], []),
        extension("streamapp.transport.local._rows", [f"{LOCAL}/_rows.c"], [PACKED]),
        extension(
            "streamapp.transport.kafka._arrived",
            [f"{KAFKA}/_arrived.c", f"{KAFKA}/_batches.c"],
            [PACKED, f"{KAFKA}/_batches.h"],
        ),
        extension(
            "streamapp.transport.kafka._departing",
            [f"{KAFKA}/{name}.c" for name in ("_departing", "_building", "_batches")],
            [PACKED, f"{KAFKA}/_batches.h", f"{KAFKA}/_building.h"],
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
