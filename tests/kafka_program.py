"""``python tests/kafka_broker.py run|status|stop``: one broker in the foreground."""

import argparse
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from kafka_broker import Broker
from kafka_jars import CACHE, Unavailable


def main(argv=None):
    """Returns the exit code: 0, 1 for an error, 3 when nothing runs."""
    parser = argparse.ArgumentParser(description="One Apache Kafka broker on loopback.")
    parser.add_argument("command", choices=["run", "status", "stop"])
    parser.add_argument("--port", type=int, default=9092, help="0: any free one")
    parser.add_argument("--sasl", action="store_true", help="a SASL listener too")
    options = parser.parse_args(argv)
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or CACHE)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "streamapp-kafka.json").open("a+") as note:
        try:
            return {"run": _run, "status": _status, "stop": _stop}[options.command](options, note)
        except (Unavailable, RuntimeError) as error:
            _say(f"error: {error}")
            return 1


def _say(line, stream=sys.stderr):
    stream.write(f"{line}\n")
    stream.flush()


def _locked(note):
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(note):
    note.seek(0)
    return json.loads(note.read() or "{}")


def _run(options, note):
    if not _locked(note):
        _say(f"one runs already: {_read(note).get('url', 'it is starting')}")
        return 1
    if options.port and _is_taken(options.port):
        _say(f"error: port {options.port} is taken\nfix: make kafka PORT=0 picks a free one")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    folder = tempfile.mkdtemp(prefix="streamapp-kafka-")
    broker = Broker(folder, port=options.port, sasl=options.sasl, say=_say)
    try:
        _say("starting Apache Kafka ...")
        broker.start()
        note.truncate(0)
        json.dump({"pid": os.getpid(), "url": broker.url}, note)
        note.flush()
        _say(broker.url, sys.stdout)
        if broker.sasl_url:
            _say(broker.sasl_url, sys.stdout)
        _say("it runs; ctrl-C stops it and removes its data")
        while broker.running:
            time.sleep(0.2)
        _say(f"error: Kafka ended by itself:\n{broker._tail()}")
    except KeyboardInterrupt:
        _say("stopping ...")
        broker.stop()
        return 0
    finally:
        note.truncate(0)
        broker.remove()
    return 1


def _is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _interrupt(_number, _frame):
    raise KeyboardInterrupt


def _status(_options, note):
    running = None if _locked(note) else _read(note)
    _say("no broker runs" if running is None else running.get("url", "starting"), sys.stdout)
    return 3 if running is None else 0


def _stop(_options, note):
    if _locked(note) or not (running := _read(note)):
        _say("no broker runs", sys.stdout)
        return 3
    os.kill(running["pid"], signal.SIGTERM)
    fcntl.flock(note, fcntl.LOCK_EX)  # held until it is gone
    return 0
