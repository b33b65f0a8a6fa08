"""Jars that tests need, resolved once by Maven into a cache outside the tree."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).parent / "kafka" / "pom.xml"
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "streamapp"
CACHE = _CACHES / "kafka"
JDBC_POM = Path(__file__).parent / "flight" / "jdbc" / "pom.xml"


class Unavailable(Exception):
    """What a test needs cannot be had on this machine."""


def jars(say=lambda _: None):
    """The folder of Kafka's jars; resolved by Maven when they are not in the cache yet."""
    return _resolved("Apache Kafka", "kafka", POM, CACHE, say)


def jdbc_jar():
    """The Arrow Flight SQL JDBC driver."""
    folder = _resolved("JDBC", "jdbc", JDBC_POM, _CACHES / "jdbc", lambda _: None)
    (jar,) = folder.glob("*.jar")
    return jar


def _resolved(what, name, path, cache, say):
    if not (shutil.which("mvn") and shutil.which("java")):
        raise Unavailable(f"{what.split()[-1]}: no Maven or Java on this machine")
    pom = path.read_bytes()
    version = re.search(rb"<%s.version>(.+?)</" % name.encode(), pom)[1].decode()
    folder = cache / f"{version}-{hashlib.sha256(pom).hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    say(f"resolving {what} {version} into {folder} (once, about 45 MB) ...")
    cache.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=cache))
    try:
        found = subprocess.run(
            ["mvn", "--quiet", "--batch-mode", "--no-transfer-progress", "--strict-checksums",
             "--file", path, "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={part}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=900,
        )  # fmt: skip
        if found.returncode:
            said = found.stdout.strip()[:2000]
            raise Unavailable(f"{what.split()[-1]}: Maven could not resolve it: {said}")
        try:
            part.rename(folder)  # whole or not at all
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder
