"""Apache Kafka's jars, resolved once by Maven into a cache outside the tree."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).parent / "kafka" / "pom.xml"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "streamapp" / "kafka"


class Unavailable(Exception):
    """No broker can run on this machine."""


def jars(say=lambda _: None):
    """The folder of Kafka's jars; resolved by Maven when they are not in the cache yet."""
    if not (shutil.which("mvn") and shutil.which("java")):
        raise Unavailable("Kafka: no Maven or Java on this machine")
    pom = POM.read_bytes()
    version = re.search(rb"<kafka.version>(.+?)</", pom)[1].decode()
    folder = CACHE / f"{version}-{hashlib.sha256(pom).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    say(f"resolving Apache Kafka {version} into {folder} (once, about 45 MB) ...")
    CACHE.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=CACHE))
    try:
        found = subprocess.run(
            ["mvn", "--quiet", "--batch-mode", "--no-transfer-progress", "--strict-checksums",
             "--file", POM, "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={part}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=900,
        )  # fmt: skip
        if found.returncode:
            raise Unavailable(f"Kafka: Maven could not resolve it: {found.stdout.strip()[:2000]}")
        try:
            part.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
