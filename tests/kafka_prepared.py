"""What every start of a broker would do again, done once and kept beside the jars.

Two thirds of what a start costs: most of it is Java that reads and checks Kafka's classes.
"""

import contextlib
import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from kafka_jars import CACHE

#: For a JVM whose start is most of its life: no optimising compiler, no threads that collect.
BRIEF = ("-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
FORMAT_S = 90.0


def classes(jars, start_and_stop):
    """Options of a JVM that maps the classes which an earlier one loaded from these jars.

    ``start_and_stop``: called with the options of the JVM that loads them, where there is none.
    """
    java = Path(shutil.which("java")).resolve()
    stamps = repr([(str(path), path.stat().st_mtime_ns) for path in (java, jars)])
    kept = CACHE / "classes" / f"{hashlib.sha256(stamps.encode()).hexdigest()[:16]}.jsa"
    with once(kept) as part:
        if part:
            part.touch()  # it stays empty where this Java has no such thing: then there is no gain
            start_and_stop(("-XX:+IgnoreUnrecognizedVMOptions", f"-XX:ArchiveClassesAtExit={part}"))
    return (f"-XX:SharedArchiveFile={kept}",) if kept.stat().st_size else ()


def format_data(jars, data, properties, users):
    """Make a broker's data folder, as StorageTool does, for a cluster of its own.

    Args:
        jars: Kafka's.
        data: the folder to make.
        properties: the broker's file.  Two brokers' data folders do not differ by it.
        users: StorageTool's options for who may come in.
    """
    asked = repr((str(jars), jars.stat().st_mtime_ns, users))
    kept = CACHE / "formatted" / hashlib.sha256(asked.encode()).hexdigest()[:16]
    with once(kept) as part:
        if part:
            _run_storage_tool(jars, part, properties, users)
    shutil.copytree(kept, data)
    identity = data / "meta.properties"
    cluster = f"cluster.id={uuid.uuid4().hex[:22]}"
    identity.write_text(re.sub(r"(?m)^cluster\.id=.*$", cluster, identity.read_text()))


def _run_storage_tool(jars, data, properties, users):
    with tempfile.NamedTemporaryFile("w", suffix=".properties") as elsewhere:
        elsewhere.write(f"{properties.read_text()}\nlog.dirs={data}\n")  # the last one counts
        elsewhere.flush()
        made = subprocess.run(
            ["java", *BRIEF, "-Dlog4j2.level=ERROR",
             "-cp", f"{jars}/*", "kafka.tools.StorageTool", "format", "--cluster-id", "none",
             "--config", elsewhere.name, *users],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=FORMAT_S,
        )  # fmt: skip
    if made.returncode:
        raise RuntimeError(f"Kafka's StorageTool failed:\n{made.stdout[-4000:]}")


@contextlib.contextmanager
def once(path):
    """Where to make it, when it is not there yet; who comes meanwhile waits and then finds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            part = Path(folder) / path.name
            yield part
            part.rename(path)  # whole or not at all
